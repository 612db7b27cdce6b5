"""Which chunks a worker computes next. Pure functions; times are seconds of one monotonic clock.

Chunks are ordered by when they are due. That alone has the properties wanted: a session that is ahead of its playback
is due later and yields to one that is about to stall; and as no chunk can have been due before it came, every waiting
chunk becomes the first at some time, however late another session is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from services.pass_times import PassTimes

# A wider pass has to end sooner by this part, or it is not worth what the first chunk loses by it.
WORTH_SHARING: Final = 0.05


@dataclass(frozen=True, slots=True)
class Candidate:
    """The chunk at the head of one session's queue."""

    session_id: str
    deadline_seconds: float
    arrival_seconds: float
    started: bool
    # Passes until it can be answered.
    passes_left: int = 1

    @property
    def due_seconds(self) -> float:
        """When it is due; what was late before it came is due as it comes."""
        return max(self.deadline_seconds, self.arrival_seconds)


def by_urgency(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The candidates, the one that is due first in front.

    Equal times: a started chunk goes on first (fewer half-finished ones), then the one that arrived first, then by
    session so that two runs decide alike.
    """
    return sorted(candidates, key=lambda one: (one.due_seconds, not one.started, one.arrival_seconds, one.session_id))


def next_pass(waiting: Sequence[Candidate], times: PassTimes, most: int, now_seconds: float) -> Sequence[Candidate]:
    """Which of the chunks take part in the next pass: the most urgent ones, as many as it pays to take.

    For every number of chunks that may share a pass, up to `most`, it is foreseen when each waiting chunk would be
    done. What makes the latest one least late wins; among equals, and that is the rule where the device is not
    overloaded, what is done with all of them sooner. So a batch never makes a chunk miss its time that would meet it
    without, unless this saves another one from being later still.

    `waiting`: in the order of `by_urgency`. `times`: of a pass over so many chunks. Returns nothing for nothing.
    """
    best_width, least_late, soonest_end = 1, 0.0, 0.0
    if len(waiting) < 2 or most < 2:
        return waiting[:1]
    for width in _widths(min(len(waiting), most), times):
        late, end = _foreseen(waiting, times, width, now_seconds)
        sooner = late <= least_late and end < (1 - WORTH_SHARING) * soonest_end
        if width == 1 or late < least_late or sooner:
            best_width, least_late, soonest_end = width, late, end
    return waiting[:best_width]


def _widths(most: int, times: PassTimes) -> list[int]:
    """What was measured up to `most`, and `most` itself, if that is not beyond what was measured."""
    measured = [width for width in times.widths if width <= most]
    return measured if most in measured or most > times.widths[-1] else [*measured, most]


def _foreseen(waiting: Sequence[Candidate], times: PassTimes, width: int, now_seconds: float) -> tuple[float, float]:
    """How late the latest chunk would be (0: none is), and how long all would take, with passes over `width` chunks."""
    seconds, late = 0.0, 0.0
    running = [[one.passes_left, one.due_seconds] for one in waiting[:width]]
    queue = list(waiting[width:])
    while running:
        passes = min(left for left, _ in running)
        seconds += passes * times.of(len(running))
        going_on: list[list[float]] = []
        for left, due in running:
            if left > passes:
                going_on.append([left - passes, due])
            else:
                late = max(late, now_seconds + seconds - due)
        while queue and len(going_on) < width:
            one = queue.pop(0)
            going_on.append([one.passes_left, one.due_seconds])
        running = going_on
    return late, seconds


def keep_places(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """Orders the sessions of a pass so that whoever was in the last one keeps its rows, where these are still used.

    A session that is given other rows may cost a copy of its keys and values (`visavis.models.graphed_runner`).
    """
    taking_part, places = set(now), len(now)
    kept = [name if name in taking_part else None for name in before[:places]]
    kept += [None] * (places - len(kept))
    others = iter(name for name in now if name not in kept)
    return [next(others) if name is None else name for name in kept]
