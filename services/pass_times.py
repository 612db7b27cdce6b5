"""How long a device takes for a pass over several sessions' rows at once, as it was measured when the stage started."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

# Of one number of sessions; the shortest counts, as whatever else runs on the machine can only make it longer.
REPEATS: Final = 3
# Twice the sessions have to cost less than this many times as much, or more of them are not tried.
WORTH_DOUBLING: Final = 2.0 * 0.97


@dataclass(frozen=True, slots=True)
class PassTimes:
    """Seconds of one pass by how many sessions share it; 1 is always there."""

    seconds: Mapping[int, float]

    def __post_init__(self) -> None:
        if 1 not in self.seconds or min(self.seconds) < 1 or min(self.seconds.values()) <= 0:
            raise ValueError(f"pass times need one session and positive seconds, not {dict(self.seconds)}")

    @property
    def widths(self) -> list[int]:
        """The numbers of sessions that were measured, ascending."""
        return sorted(self.seconds)

    def of(self, sessions: int) -> float:
        """Seconds of a pass over so many sessions: on the line between two measured ones, beyond all on the last."""
        if sessions in self.seconds:
            return self.seconds[sessions]
        widths = self.widths
        if len(widths) == 1:
            return self.seconds[1] * sessions
        place = min(max(bisect_right(widths, sessions), 1), len(widths) - 1)
        below, above = widths[place - 1], widths[place]
        slope = (self.seconds[above] - self.seconds[below]) / (above - below)
        return self.seconds[below] + slope * (sessions - below)

    def best_seconds(self, most: int) -> float:
        """Device time of one session's part of a pass, at the best measured number of sessions up to `most`."""
        return min(self.seconds[width] / width for width in self.seconds if width <= most)


def measure_pass_times(
    run_pass: Callable[[int], None],
    most: int,
    *,
    budget_seconds: float,
    prepare: Callable[[int], None] = lambda sessions: None,
    clock: Callable[[], float] = time.perf_counter,
) -> PassTimes:
    """Times `run_pass(sessions)`, which returns when the device is done, for 1, 2, 4, ... sessions up to `most`.

    Each pass comes after `prepare(sessions)`, which is not timed; and the first of each number is not counted. Stops
    where more sessions no longer make the device more useful, and once the budget is used up.
    """
    begin, seconds, width = clock(), dict[int, float](), 1
    while width <= most:
        taken: list[float] = []
        while len(taken) < 1 + REPEATS and (len(taken) < 2 or clock() - begin < budget_seconds):
            prepare(width)
            start = clock()
            run_pass(width)
            taken.append(clock() - start)
        seconds[width] = max(min(taken[1:]), 1e-9)
        worth_it = width == 1 or seconds[width] < WORTH_DOUBLING * seconds[width // 2]
        if not worth_it or clock() - begin > budget_seconds:
            break
        width *= 2
    return PassTimes(seconds)
