"""How often eyes blink.

F frames
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from visavis.contract import FRAME_RATE
from visavis.evaluation.estimate import Estimate, Rows, estimate, ratio_of_sums
from visavis.training.data.footage.detectors import Faces

# MediaPipe's points: middles of upper and lower lid, inner and outer corner; right eye, left eye.
_EYES = ((159, 145, 133, 33), (386, 374, 362, 263))
# Of how far the clip's eyes are open in most frames.
_SHUT_SHARE = 0.5


def eye_opening(faces: Faces) -> npt.NDArray[np.float64]:
    """Height over width, mean of both eyes, [F]; NaN in frames without a face."""
    points_FN2 = faces.landmarks_FN2.astype(np.float64)
    eyes = []
    for upper, lower, inner, outer in _EYES:
        height_F = np.linalg.norm(points_FN2[:, upper] - points_FN2[:, lower], axis=-1)
        eyes.append(height_F / np.linalg.norm(points_FN2[:, inner] - points_FN2[:, outer], axis=-1))
    return np.where(faces.found_F, np.mean(eyes, axis=0), np.nan)


def count_blinks(opening_F: npt.NDArray[np.float64]) -> int:
    """How often the eyes become less than half as open as in the clip's middle frame, by opening."""
    known = opening_F[np.isfinite(opening_F)]
    if not len(known):
        return 0
    shut = known < _SHUT_SHARE * np.median(known)
    return int(np.count_nonzero(shut[1:] & ~shut[:-1]) + shut[0])


def blinks_per_minute(clips: Sequence[tuple[int, int]]) -> Estimate:
    """Of clips with so many blinks in so many frames each."""
    return estimate(clips, _rate)


def _rate(rows: Rows) -> Rows:
    return 60 * FRAME_RATE * ratio_of_sums(rows)
