"""Footage that needs no detector: a bright disc for a face, a red square for a hand, a blue stripe for text.

`PlainFinder` sees them by their colour, so what it finds follows every change of size, rate and crop.

Legend: F frames, H W picture, N boxes or landmarks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tests.training.footage.made_up_footage import Pixels, Samples
from visavis.training.data.footage.detectors import Boxes, Faces

GREY, RED, BLUE = (90, 90, 90), (220, 30, 30), (30, 30, 220)
_BRIGHT = 200
_LANDMARKS = 478
_MOUTH = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409)


class PlainFinder:
    """Finds discs, squares and stripes. `asked` counts the calls."""

    def __init__(self) -> None:
        self.asked = 0

    def faces(self, pictures_FHW3: Pixels) -> Faces:
        self.asked += 1
        landmarks_FN2 = np.full((len(pictures_FHW3), _LANDMARKS, 2), np.nan, dtype=np.float32)
        boxes: list[list[tuple[float, ...]]] = []
        for number, picture in enumerate(pictures_FHW3):
            boxes.append(_discs(picture))
            if boxes[-1]:
                landmarks_FN2[number] = _mesh(*boxes[-1][0])
        return Faces(landmarks_FN2, np.array([bool(box) for box in boxes]), _boxes(boxes, 0.9))

    def hands(self, pictures_FHW3: Pixels) -> Boxes:
        return _boxes([_box_of(picture, RED) for picture in pictures_FHW3], 0.95)

    def text(self, pictures_FHW3: Pixels) -> Boxes:
        return _boxes([_box_of(picture, BLUE) for picture in pictures_FHW3], 0.7)


def film(
    frames: int = 9, height: int = 120, width: int = 160, radius: int = 26, middle: tuple[int, int] = (60, 80)
) -> Pixels:
    """A disc that nods a little. [F, H, W, 3]"""
    frames_FHW3 = np.tile(np.array(GREY, dtype=np.uint8), (frames, height, width, 1))
    for number in range(frames):
        draw_disc(frames_FHW3[number], radius, (middle[0] + number % 3, middle[1]))
    return frames_FHW3


def draw_disc(picture: Pixels, radius: int, middle: tuple[int, int]) -> None:
    """A white disc around a row and a column."""
    rows, columns = np.indices(picture.shape[:2])
    picture[(rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 <= radius**2] = 255


def tone(frames: int, sample_rate_hz: int = 48_000, loudness: float = 0.2) -> Samples:
    """A tone as long as `frames` at 25 per second [S]."""
    times = np.arange(frames * sample_rate_hz // 25) / sample_rate_hz
    return (loudness * np.sin(2 * np.pi * 220 * times)).astype(np.float32)


def _discs(picture: Pixels) -> list[tuple[float, ...]]:
    """Boxes of bright runs of columns, the leftmost first."""
    bright = picture.min(axis=2) > _BRIGHT
    columns = np.flatnonzero(bright.any(axis=0))
    if not len(columns):
        return []
    runs = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    found: list[tuple[float, ...]] = []
    for run in runs:
        rows = np.flatnonzero(bright[:, run].any(axis=1))
        found.append((float(run[0]), float(rows[0]), float(run[-1] + 1), float(rows[-1] + 1)))
    return found


def _mesh(left: float, top: float, right: float, bottom: float) -> npt.NDArray[np.float64]:
    """Points on the disc's rim, those of the lips in its lower half."""
    turn = np.linspace(0, 2 * np.pi, _LANDMARKS, endpoint=False)
    rim = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    lips = np.linspace(0, 2 * np.pi, len(_MOUTH), endpoint=False)
    rim[list(_MOUTH)] = np.stack([0.3 * np.cos(lips), 0.5 + 0.15 * np.sin(lips)], axis=1)
    half = 1.02 * np.array([(right - left) / 2, (bottom - top) / 2])  # a mesh goes on where the picture ends
    return np.asarray(rim * half + [(left + right) / 2, (top + bottom) / 2])


def _box_of(picture: Pixels, colour: tuple[int, int, int]) -> list[tuple[float, ...]]:
    rows, columns = np.nonzero(np.abs(picture.astype(int) - colour).max(axis=2) < 60)
    if len(rows) < 20:
        return []
    return [(float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))]


def _boxes(found: list[list[tuple[float, ...]]], score: float) -> Boxes:
    rows = [(number, box) for number, boxes in enumerate(found) for box in boxes]
    return Boxes(
        np.array([number for number, _ in rows], dtype=np.int32),
        np.array([box for _, box in rows], dtype=np.float32).reshape(-1, 4),
        np.full(len(rows), score, dtype=np.float32),
    )
