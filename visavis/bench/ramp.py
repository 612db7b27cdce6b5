"""How many sessions are wanted at which time, and from when to when each of them runs; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


class RampError(ValueError):
    """A schedule that makes no sense. The message says what is wrong and what to write instead."""


@dataclass(frozen=True, slots=True)
class RampPoint:
    """So many sessions at this time; between two points their number changes evenly."""

    seconds: float
    sessions: int


@dataclass(frozen=True, slots=True)
class SessionInterval:
    """One session: seconds from the start of the run."""

    begin: float
    end: float


def parse_ramp(text: str, *, sessions: int, duration_seconds: float) -> tuple[RampPoint, ...]:
    """Reads `--ramp`: seconds from 0 to all sessions, held for `duration_seconds`; or a schedule of points
    `SECONDS:SESSIONS,SECONDS:SESSIONS,...`, which says all by itself. RampError for anything else.
    """
    if ":" not in text:
        rise = _number(text, "--ramp is a number of seconds, or a schedule such as 0:0,60:10,300:10")
        if rise < 0:
            raise RampError("--ramp cannot be negative")
        return (RampPoint(0.0, 0), RampPoint(rise, sessions), RampPoint(rise + duration_seconds, sessions))
    points = tuple(_point(each) for each in text.split(","))
    if len(points) < 2 or points[0].seconds != 0:
        raise RampError(f"a schedule begins at 0 seconds and has at least 2 points, not {text!r}")
    if any(later.seconds < earlier.seconds for earlier, later in pairwise(points)):
        raise RampError(f"the times of a schedule ascend; those of {text!r} do not")
    if points[-1].seconds == 0 or not any(point.sessions for point in points):
        raise RampError(f"the schedule {text!r} has no session in it")
    return points


def session_intervals(points: Sequence[RampPoint]) -> list[SessionInterval]:
    """When each session runs, in the order of their beginnings: session k while at least k are wanted.

    The last one to come is the first one to go; what still runs at the last point ends there.
    """
    intervals: list[SessionInterval] = []
    for rank in range(1, max(point.sessions for point in points) + 1):
        intervals += _intervals_of(rank, points)
    return sorted(intervals, key=lambda interval: (interval.begin, -interval.end))


def _intervals_of(rank: int, points: Sequence[RampPoint]) -> list[SessionInterval]:
    found: list[SessionInterval] = []
    begin: float | None = points[0].seconds if points[0].sessions >= rank else None
    for earlier, later in pairwise(points):
        if begin is None and later.sessions >= rank:
            begin = _crossing(rank, earlier, later)
        elif begin is not None and later.sessions < rank:
            found.append(SessionInterval(begin, _crossing(rank, earlier, later)))
            begin = None
    if begin is not None:
        found.append(SessionInterval(begin, points[-1].seconds))
    return [interval for interval in found if interval.end > interval.begin]


def _crossing(rank: int, earlier: RampPoint, later: RampPoint) -> float:
    """When the number of sessions passes half way between rank - 1 and rank."""
    part = (rank - 0.5 - earlier.sessions) / (later.sessions - earlier.sessions)
    return earlier.seconds + part * (later.seconds - earlier.seconds)


def _point(text: str) -> RampPoint:
    seconds, _, sessions = text.partition(":")
    what = f"a point of a schedule is SECONDS:SESSIONS, such as 60:10, not {text!r}"
    count = _number(sessions, what)
    if count < 0 or count != int(count):
        raise RampError(what)
    return RampPoint(_number(seconds, what), int(count))


def _number(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise RampError(f"{what} (got {text!r})") from None
    if not 0 <= abs(value) < 1e9:
        raise RampError(what)
    return value
