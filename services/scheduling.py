"""Which chunk a worker computes next: the one whose first frame is due first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """The chunk at the head of one session's queue. Times are seconds of one monotonic clock."""

    session_id: str
    deadline_seconds: float
    arrival_seconds: float
    started: bool


def next_chunk(candidates: Iterable[Candidate]) -> Candidate | None:
    """Returns the candidate with the earliest deadline, or None without candidates.

    Equal deadlines: a started chunk goes on first (fewer half-finished ones), then the one that arrived first, then by
    session so that two runs decide alike.
    """
    return min(
        candidates,
        key=lambda one: (one.deadline_seconds, not one.started, one.arrival_seconds, one.session_id),
        default=None,
    )
