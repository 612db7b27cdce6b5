"""Whether a stretch of footage makes a good clip, and the clip's pictures if so (paper, section A.2).

Checks go from cheap to dear; the first one that fails is the reason.

Legend: F frames, H W picture, S samples, E ellipses, N landmarks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from visavis.training.data.footage.detectors import Boxes, Faces, FindsFaces
from visavis.training.data.footage.face_track import Square, ellipses, fill_gaps, largest_jump, static_square
from visavis.training.data.footage.video import Frame
from visavis.training.data.performance import FRAME_RATE
from visavis.training.data.take import SAMPLES_PER_FRAME
from visavis.training.data.texture import Singles

REASONS: Final = {
    "cut": "a scene change or the end of the video comes before the clip is long enough",
    "no_sound": "no sound for the whole clip",
    "too_quiet": "speech too quiet",
    "no_face": "no face in some frames",
    "several_faces": "another face of similar size",
    "face_jumps": "the face jumps from one frame to the next",
    "face_at_edge": "the edge of the picture cuts the face",
    "face_too_small": "the face has too few pixels",
    "hand": "a hand before the face",
    "text": "text in the lower part",
}

# Landmarks need no more than this; pictures are kept as they are for the crop.
_LOOKED_AT_SHORT_SIDE = 480
_LOUD_SHARE = 0.9
_OTHER_FACE_FRAMES = 3
_LONGEST_JUMP = 0.3  # face heights
_RISE = 0.03  # of the square: rendered people's faces lie so much below the middle
_HAND_EVERY, _TEXT_EVERY = 3, 24  # frames
_LOWER_PART = 0.4
_TEXT_WIDTH = 256  # pixels, at which the text detector's scores were measured
_HIGHEST_LINE = 0.5  # of the lower part; what is higher is no line of text


@dataclass(frozen=True, slots=True)
class Limits:
    """What a clip must be like. `frames` is 8k + 1; the picture becomes `size` x `size`."""

    frames: int = 121
    size: int = 256
    # the paper's, for the palm detector's score
    hand_score: float = 0.8
    text_score: float = 0.5
    face_score: float = 0.6
    # of the speaker's height
    other_face_height: float = 0.4
    # side of the crop over the longer side of the landmarks' extrema; 1.76 is the mean of rendered people
    margin: float = 1.75
    largest_enlargement: float = 1.25
    # root mean square of the loudest tenth of frames, decibels below full scale
    quietest_decibels: float = -45.0
    # of 121: landmarks are interpolated there
    most_frames_without_face: int = 3


@dataclass(frozen=True, slots=True)
class Dropped:
    """A stretch that makes no clip: the reason (of REASONS), and what exactly was seen."""

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """A good clip: pictures [F, size, size, 3], mouth and eyes [F, E, 4], sound [S], the square it was cut from."""

    frames_FHW3: npt.NDArray[np.uint8]
    ellipses_FE4: Singles
    samples_S: npt.NDArray[np.float32]
    # in pixels of a picture of `picture_size` (height, width)
    square: Square
    picture_size: tuple[int, int]


def examine(
    stretch: Sequence[Frame], sound_S: npt.NDArray[np.float32], finder: FindsFaces, limits: Limits
) -> Kept | Dropped:
    """Looks at a stretch of a video whose whole sound is `sound_S` (from the time of frame number 0 on).

    The sound of frame n of the clip lies under it: frame 0, the portrait, has none. Raises DetectorError.
    """
    if len(stretch) < limits.frames:
        return Dropped("cut", f"{len(stretch)} frames")
    samples_S = sound_of(stretch, sound_S)
    return _sound_fault(samples_S, len(stretch), limits) or _look(stretch, samples_S, finder, limits)


def sound_of(stretch: Sequence[Frame], sound_S: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What is heard while frames 1 to F - 1 are shown [640 (F - 1)]; shorter where the sound ends."""
    start = (stretch[0].number + 1) * SAMPLES_PER_FRAME
    return sound_S[start : start + (len(stretch) - 1) * SAMPLES_PER_FRAME]


def loudness(samples_S: npt.NDArray[np.float32]) -> float:
    """Decibels below full scale of the loudest tenth of frames; -120 for digital silence."""
    energy_F = np.sqrt((samples_S.reshape(-1, SAMPLES_PER_FRAME) ** 2).mean(axis=1))
    return float(20 * np.log10(max(float(np.quantile(energy_F, _LOUD_SHARE)), 1e-6)))


def _sound_fault(samples_S: npt.NDArray[np.float32], frames: int, limits: Limits) -> Dropped | None:
    if len(samples_S) < (frames - 1) * SAMPLES_PER_FRAME:
        return Dropped("no_sound", f"{len(samples_S) / SAMPLES_PER_FRAME / FRAME_RATE:.2f} s")
    if (level := loudness(samples_S)) < limits.quietest_decibels:
        return Dropped("too_quiet", f"{level:.0f} dB")
    return None


def _look(
    stretch: Sequence[Frame], samples_S: npt.NDArray[np.float32], finder: FindsFaces, limits: Limits
) -> Kept | Dropped:
    small_FHW3 = np.stack([frame.pixels(_LOOKED_AT_SHORT_SIDE) for frame in stretch])
    faces = finder.faces(small_FHW3)
    if fault := _face_fault(faces, limits):
        return fault
    landmarks_FN2 = fill_gaps(faces.landmarks_FN2, faces.found_F)
    if (jump := largest_jump(landmarks_FN2)) > _LONGEST_JUMP:
        return Dropped("face_jumps", f"{jump:.2f} face heights")
    height, width = stretch[0].pixels().shape[:2]
    scale = height / small_FHW3.shape[1]
    landmarks_FN2 *= scale
    square = static_square(landmarks_FN2, height, width, limits.margin, _RISE)
    if square is None:
        return Dropped("face_at_edge")
    if square.side * limits.largest_enlargement < limits.size:
        return Dropped("face_too_small", f"a square of {square.side:.0f} pixels")
    frames_FHW3 = np.stack([_cropped(frame, square, limits.size) for frame in stretch])
    if fault := _hand_fault(finder, frames_FHW3, limits) or _text_fault(finder, frames_FHW3, limits):
        return fault
    return Kept(frames_FHW3, ellipses(landmarks_FN2, square), samples_S, square, (height, width))


def _face_fault(faces: Faces, limits: Limits) -> Dropped | None:
    missing = int((~faces.found_F).sum())
    if missing > limits.most_frames_without_face:
        return Dropped("no_face", f"{missing} frames")
    others = _frames_with_others(faces, limits)
    if len(others) >= _OTHER_FACE_FRAMES:
        return Dropped("several_faces", f"{len(others)} frames, first {others[0]}")
    return None


def _frames_with_others(faces: Faces, limits: Limits) -> list[int]:
    """Frames with a face beside the one whose landmarks were found."""
    boxes = faces.boxes
    seen = []
    for frame in np.flatnonzero(faces.found_F):
        low, high = faces.landmarks_FN2[frame].min(axis=0), faces.landmarks_FN2[frame].max(axis=0)
        here_N4 = boxes.boxes_N4[(boxes.pictures_N == frame) & (boxes.scores_N >= limits.face_score)]
        middles_N2 = (here_N4[:, :2] + here_N4[:, 2:]) / 2
        elsewhere = ((middles_N2 < low) | (middles_N2 > high)).any(axis=1)
        tall = here_N4[:, 3] - here_N4[:, 1] > limits.other_face_height * (high[1] - low[1])
        if (elsewhere & tall).any():
            seen.append(int(frame))
    return seen


def _cropped(frame: Frame, square: Square, size: int) -> npt.NDArray[np.uint8]:
    picture = Image.fromarray(frame.pixels())
    return np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS, box=square.box()), dtype=np.uint8)


def _hand_fault(finder: FindsFaces, frames_FHW3: npt.NDArray[np.uint8], limits: Limits) -> Dropped | None:
    """Hands anywhere in the crop: it holds little beside the face."""
    return _worst("hand", finder.hands(frames_FHW3[::_HAND_EVERY]), limits.hand_score, _HAND_EVERY)


def _text_fault(finder: FindsFaces, frames_FHW3: npt.NDArray[np.uint8], limits: Limits) -> Dropped | None:
    first_row = int(_TEXT_WIDTH * (1 - _LOWER_PART))
    lower = [
        np.asarray(Image.fromarray(picture).resize((_TEXT_WIDTH, _TEXT_WIDTH), Image.Resampling.LANCZOS))[first_row:]
        for picture in frames_FHW3[::_TEXT_EVERY]
    ]
    found = finder.text(np.stack(lower))
    lines = found.boxes_N4[:, 3] - found.boxes_N4[:, 1] < _HIGHEST_LINE * (_TEXT_WIDTH - first_row)
    found = Boxes(found.pictures_N[lines], found.boxes_N4[lines], found.scores_N[lines])
    return _worst("text", found, limits.text_score, _TEXT_EVERY)


def _worst(reason: str, found: Boxes, limit: float, every: int) -> Dropped | None:
    if not len(found.scores_N) or found.scores_N.max() <= limit:
        return None
    worst = int(found.scores_N.argmax())
    return Dropped(reason, f"score {found.scores_N[worst]:.2f} in frame {int(found.pictures_N[worst]) * every}")
