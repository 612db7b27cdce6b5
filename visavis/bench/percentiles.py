"""Percentiles of small samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Nearest-rank percentiles (every figure is one that was measured), mean and extremes; NaN for no values."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Of any number of values."""
        if not values:
            nan = float("nan")
            return cls(0, nan, nan, nan, nan, nan)
        ordered = sorted(values)
        return cls(
            count=len(ordered),
            mean=sum(ordered) / len(ordered),
            p50=_nearest_rank(ordered, 50),
            p95=_nearest_rank(ordered, 95),
            p99=_nearest_rank(ordered, 99),
            maximum=ordered[-1],
        )


def _nearest_rank(ordered: Sequence[float], percent: int) -> float:
    rank = -(-percent * len(ordered) // 100)  # rounded up
    return ordered[max(rank, 1) - 1]
