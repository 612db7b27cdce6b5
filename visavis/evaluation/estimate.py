"""A measure over clips, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_RESAMPLES = 2_000
_OUTSIDE_PERCENT = 2.5

Rows = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """The value over all clips, and its 95 % confidence interval: of clips drawn again and again from these ones."""

    value: float
    low: float
    high: float
    clips: int


def mean_over_clips(values: Sequence[float]) -> Estimate:
    """The mean; every clip counts the same. Raises ValueError for no clips."""
    return estimate([(value,) for value in values], lambda rows: rows[..., 0].mean(axis=-1))


def estimate(rows_NK: Sequence[Sequence[float]], statistic: Callable[[Rows], Any]) -> Estimate:
    """`statistic` of the clips' numbers, [..., N, K] -> [...]. Raises ValueError for no clips."""
    rows = np.array(rows_NK, dtype=np.float64)
    if rows.ndim != 2 or len(rows) == 0:
        raise ValueError("there is no clip to measure")
    # One seed: the same clips give the same interval.
    drawn = np.random.default_rng(0).integers(len(rows), size=(_RESAMPLES, len(rows)))
    low, high = np.percentile(statistic(rows[drawn]), [_OUTSIDE_PERCENT, 100 - _OUTSIDE_PERCENT])
    return Estimate(float(statistic(rows)), float(low), float(high), len(rows))


def ratio_of_sums(rows: Rows) -> Rows:
    """The clips' first numbers over their second ones, [..., N, 2] -> [...]; NaN where these add up to nothing."""
    numerator, denominator = (rows[..., column].sum(axis=-1) for column in range(2))
    return np.where(denominator != 0, numerator / np.where(denominator != 0, denominator, 1.0), np.nan)


def defined(found: Estimate) -> Estimate | None:
    """None where value or interval is no number: something was divided by nothing."""
    return found if all(map(math.isfinite, astuple(found))) else None
