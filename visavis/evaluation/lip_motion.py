"""How lips move in two renderings of the same speech: whether alike, and how late.

F frames; gaps are shares of the face's height, NaN in frames without a face
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from visavis.evaluation.face_points import LOWER_LIP, UPPER_LIP, SignalMoments, signal_moments
from visavis.training.data.footage.detectors import Faces

# MediaPipe's points on the middle of forehead and chin.
_FOREHEAD, _CHIN = 10, 152
# Half a second to each side.
MOST_LAG_FRAMES = 12
# A gap that varies by less (deviation, share of the face's height) is no motion: MediaPipe's points tremble as much.
_LEAST_DEVIATION = 1e-3

Signal = npt.NDArray[np.float64]


def face_heights(faces: Faces) -> Signal:
    """From forehead to chin, in pixels, [F]."""
    return _distance(faces, _FOREHEAD, _CHIN)


def lip_gap(faces: Faces) -> Signal:
    """The distance between the middles of the inner lips, [F]."""
    return _distance(faces, UPPER_LIP, LOWER_LIP) / face_heights(faces)


def moments_at_lag(one_F: Signal, other_F: Signal, lag: int) -> SignalMoments:
    """Of `one` and of what `other` is `lag` frames later, over the frames in which both are known."""
    frames = min(len(one_F), len(other_F))
    first, last = max(0, -lag), frames - max(0, lag)
    one_F, other_F = one_F[first:last], other_F[first + lag : last + lag]
    both_F = np.isfinite(one_F) & np.isfinite(other_F)
    return signal_moments(one_F[both_F], other_F[both_F])


def lag_frames(one_F: Signal, other_F: Signal) -> float:
    """How many frames later `other` does what `one` does, to a fraction of a frame.

    Where their correlation is highest, with a parabola through the highest value and its neighbours. NaN where one of
    them hardly moves, or no lag within half a second has a positive correlation.
    """
    if min(_deviation(one_F), _deviation(other_F)) < _LEAST_DEVIATION:
        return float("nan")
    lags = range(-MOST_LAG_FRAMES - 1, MOST_LAG_FRAMES + 2)
    correlations = np.array([_pearson(moments_at_lag(one_F, other_F, lag)) for lag in lags])
    best = 1 + int(correlations[1:-1].argmax())
    before, highest, after = correlations[best - 1 : best + 2]
    if highest <= 0:
        return float("nan")
    bend = before - 2 * highest + after
    shift = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return float(lags[best] + np.clip(shift, -0.5, 0.5))


def _pearson(moments: SignalMoments) -> float:
    power = np.sqrt(moments.variance * moments.other_variance)
    return float(moments.covariance / power) if power > 0 else 0.0


def _deviation(signal_F: Signal) -> float:
    known = signal_F[np.isfinite(signal_F)]
    return float(known.std()) if len(known) else 0.0


def _distance(faces: Faces, one: int, other: int) -> Signal:
    points_FN2 = faces.landmarks_FN2.astype(np.float64)
    distance_F = np.linalg.norm(points_FN2[:, one] - points_FN2[:, other], axis=-1)
    return np.where(faces.found_F, distance_F, np.nan)
