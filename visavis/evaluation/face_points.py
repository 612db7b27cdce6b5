"""Whether a reconstruction keeps the face where it was and the lips apart as they were.

F frames; MediaPipe's mesh has 478 points, in pixels
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from visavis.evaluation.estimate import Estimate, Rows, estimate
from visavis.training.data.footage.detectors import Faces

# The middle of the inner edge of the upper and the lower lip in MediaPipe's mesh.
UPPER_LIP, LOWER_LIP = 13, 14


@dataclass(frozen=True, slots=True)
class SignalMoments:
    """How two signals of one clip vary around their means, summed over its frames."""

    covariance: float
    variance: float
    other_variance: float


def landmark_error(original: Faces, other: Faces) -> float:
    """The mean distance between the same points of both, in pixels; frames without a face in either are left out.

    NaN when no frame is left.
    """
    both_F = original.found_F & other.found_F
    distances = np.linalg.norm(original.landmarks_FN2[both_F] - other.landmarks_FN2[both_F], axis=-1)
    return float(distances.mean()) if both_F.any() else float("nan")


def lip_gaps(original: Faces, other: Faces) -> SignalMoments:
    """The distance between the lips in both, over the frames in which both have a face."""
    both_F = original.found_F & other.found_F
    gaps = [
        np.linalg.norm(faces.landmarks_FN2[both_F, UPPER_LIP] - faces.landmarks_FN2[both_F, LOWER_LIP], axis=-1)
        for faces in (original, other)
    ]
    return signal_moments(*gaps)


def signal_moments(one_F: np.ndarray, other_F: np.ndarray) -> SignalMoments:
    """Of two signals of the same frames; all 0 for none."""
    if len(one_F) == 0:
        return SignalMoments(0.0, 0.0, 0.0)
    one_F, other_F = one_F - one_F.mean(), other_F - other_F.mean()
    return SignalMoments(float(one_F @ other_F), float(one_F @ one_F), float(other_F @ other_F))


def correlation(moments: Sequence[SignalMoments]) -> Estimate:
    """Pearson's correlation within clips, all clips together: one that keeps its mouth shut has little weight.

    0 where a signal stands still.
    """
    rows = [(clip.covariance, clip.variance, clip.other_variance) for clip in moments]
    return estimate(rows, _pearson)


def _pearson(rows: Rows) -> Rows:
    covariance, one, other = (rows[..., column].sum(axis=-1) for column in range(3))
    power = np.sqrt(one * other)
    return np.where(power > 0, covariance / np.where(power > 0, power, 1.0), 0.0)
