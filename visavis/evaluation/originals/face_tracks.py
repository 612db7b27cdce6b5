"""Face tracks as syncnet_python's pipeline cuts them out: detections linked over time, smoothed, 224 x 224.

F frames of a track, H W picture
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from visavis.evaluation.originals.resizing import resize_bilinear
from visavis.evaluation.originals.s3fd import intersection_over_union

SIZE: Final = 224
# The pipeline's defaults.
_LEAST_OVERLAP: Final = 0.5
_LONGEST_GAP: Final = 25
_LEAST_FRAMES: Final = 100
_LEAST_PIXELS: Final = 100
_MARGIN: Final = 0.4
_SMOOTHED_FRAMES: Final = 13
_GREY: Final = 110

Floats = npt.NDArray[np.float64]
Pictures = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class FaceTrack:
    """One face over successive frames: the first of them, and a box (left, top, right, bottom) in each, [F, 4]."""

    first_frame: int
    boxes_F4: Floats


def link_faces(faces: Sequence[Floats]) -> list[FaceTrack]:
    """The tracks in one shot; `faces` has the boxes [N, 4] of each frame.

    A face goes on where its box shares more than half; gaps of up to 25 frames are filled in. Tracks of 100 frames and
    less, and faces of 100 pixels and less, are left out.
    """
    waiting = [list(boxes) for boxes in faces]
    tracks = []
    while linked := _next_track(waiting):
        frames, boxes = np.array([frame for frame, _ in linked]), np.array([box for _, box in linked])
        if len(frames) <= _LEAST_FRAMES:
            continue
        every = np.arange(frames[0], frames[-1] + 1)
        filled = np.stack([np.interp(every, frames, column) for column in boxes.T], axis=1)
        if (filled[:, 2:] - filled[:, :2]).mean(axis=0).max() > _LEAST_PIXELS:
            tracks.append(FaceTrack(int(frames[0]), filled))
    return tracks


def cut_out(pictures_FHW3: Pictures, track: FaceTrack) -> Pictures:
    """The track's face in each of its frames, RGB [F, 224, 224, 3]; what lies outside of the picture is grey."""
    boxes = track.boxes_F4
    half_F = medians((boxes[:, 2:] - boxes[:, :2]).max(axis=1) / 2)
    x_F, y_F = (medians((boxes[:, axis] + boxes[:, axis + 2]) / 2) for axis in (0, 1))
    faces = []
    for picture, half, x, y in zip(pictures_FHW3[track.first_frame :], half_F, x_F, y_F, strict=False):
        border = int(half * (1 + 2 * _MARGIN))
        padded = np.pad(picture, ((border, border), (border, border), (0, 0)), constant_values=_GREY)
        top, bottom = int(y + border - half), int(y + border + half * (1 + 2 * _MARGIN))
        left, right = int(x + border - half * (1 + _MARGIN)), int(x + border + half * (1 + _MARGIN))
        faces.append(resize_bilinear(padded[top:bottom, left:right], SIZE, SIZE))
    return np.stack(faces)


def medians(signal_F: Floats) -> Floats:
    """Running median of 13 frames; before its start and after its end the signal is zero (scipy's `medfilt`)."""
    padded = np.pad(signal_F, _SMOOTHED_FRAMES // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, _SMOOTHED_FRAMES)
    return np.asarray(np.median(windows, axis=1), dtype=np.float64)


def _next_track(waiting: list[list[Floats]]) -> list[tuple[int, Floats]]:
    """Takes one track's boxes out of `waiting`, with their frames; none: no box is left."""
    track: list[tuple[int, Floats]] = []
    for frame, boxes in enumerate(waiting):
        if track and frame - track[-1][0] > _LONGEST_GAP:
            break
        for place, box in enumerate(boxes):
            if not track or intersection_over_union(box, track[-1][1]) > _LEAST_OVERLAP:
                track.append((frame, boxes.pop(place)))
                break
    return track
