"""A speaker's face over a clip: where its landmarks go, the square that holds them all, and where mouth and eyes are.

Legend: F frames, N landmarks (478), E ellipses (mouth, left eye, right eye).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from visavis.training.data.regions import REGIONS, ellipse_around
from visavis.training.data.texture import Singles

# MediaPipe's numbers of the outer lip line and of the lids; left and right are the person's.
_POINTS = {
    "mouth": (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409),
    "left_eye": (263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398),
    "right_eye": (33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173),
}


@dataclass(frozen=True, slots=True)
class Square:
    """A square part of a picture, in pixels."""

    left: float
    top: float
    side: float

    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        return self.left, self.top, self.left + self.side, self.top + self.side


def fill_gaps(landmarks_FN2: Singles, found_F: npt.NDArray[np.bool_]) -> Singles:
    """Landmarks of frames without a face, from those before and after them in time; at least one frame has a face."""
    times = np.arange(len(found_F))
    flat = landmarks_FN2.reshape(len(found_F), -1)
    filled = np.stack([np.interp(times, times[found_F], column[found_F]) for column in flat.T], axis=1)
    return np.asarray(filled.reshape(landmarks_FN2.shape), dtype=np.float32)


def largest_jump(landmarks_FN2: Singles) -> float:
    """How far the face's middle moves from one frame to the next at most, in face heights."""
    middles_F2 = landmarks_FN2.mean(axis=1)
    heights_F = np.ptp(landmarks_FN2[..., 1], axis=1)
    steps = np.linalg.norm(np.diff(middles_F2, axis=0), axis=1) / np.maximum(heights_F[1:], 1e-6)
    return float(steps.max(initial=0.0))


def static_square(landmarks_FN2: Singles, height: int, width: int, margin: float, rise: float) -> Square | None:
    """The square around the extrema of all landmarks over the clip (paper, section A.2), inside the picture.

    Its side is `margin` times the extrema's longer side, smaller where the picture ends; the extrema's middle lies
    `rise` of the side below the square's. None where the picture cuts the face.
    """
    low, high = landmarks_FN2.min(axis=(0, 1)), landmarks_FN2.max(axis=(0, 1))
    if low.min() <= 0 or high[0] >= width or high[1] >= height:
        return None
    side = min(margin * float((high - low).max()), float(min(height, width)))
    middle_x, middle_y = (low + high) / 2
    left = float(np.clip(middle_x - side / 2, 0, width - side))
    top = float(np.clip(middle_y - (0.5 + rise) * side, 0, height - side))
    return Square(left, top, side)


def ellipses(landmarks_FN2: Singles, square: Square) -> Singles:
    """Mouth and eyes as shares of the square: [F, E, 4], as in `Clip.ellipses_FE4`."""
    inside_FN2 = (landmarks_FN2 - np.array((square.left, square.top), dtype=np.float32)) / square.side
    return np.array(
        [
            [ellipse_around(points_N2[list(_POINTS[region])], region, 1) for region in REGIONS]
            for points_N2 in inside_FN2
        ],
        dtype=np.float32,
    )
