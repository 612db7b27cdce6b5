"""A device that takes simulated time for its passes, and sessions whose chunks come and play at a fixed pace."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from services.pass_times import PassTimes
from services.scheduling import Candidate, by_urgency, next_pass

CHUNK_SECONDS = 0.96


@dataclass(frozen=True)
class Pace:
    """When chunks of a session come, one every 0.96 s, and how long after its coming each is due."""

    first_seconds: float
    lead_seconds: float
    chunks: int


@dataclass
class Chunk:
    arrival_seconds: float
    due_seconds: float
    passes_left: int
    started: bool = False
    done_seconds: float | None = None


@dataclass
class SimulatedSession:
    chunks: list[Chunk]
    waiting: deque[Chunk] = field(default_factory=deque)

    @property
    def done(self) -> int:
        return sum(chunk.done_seconds is not None for chunk in self.chunks)


class Simulation:
    """Runs `next_pass` until every chunk is done. `widths`: of every pass; `spread`: most that sessions were apart."""

    def __init__(self, paces: list[Pace], times: PassTimes, passes: int, most: int) -> None:
        self.sessions = [SimulatedSession(_chunks(pace, passes)) for pace in paces]
        self.widths: list[int] = []
        self.spread = 0
        self.now = 0.0
        coming = sorted(
            (
                (chunk.arrival_seconds, number, chunk)
                for number, one in enumerate(self.sessions)
                for chunk in one.chunks
            ),
            key=lambda entry: entry[:2],
        )
        self._coming = deque(coming)
        while self._coming or any(session.waiting for session in self.sessions):
            self._step(times, most)

    def _step(self, times: PassTimes, most: int) -> None:
        if not any(session.waiting for session in self.sessions):
            self.now = max(self.now, self._coming[0][0])
        while self._coming and self._coming[0][0] <= self.now:
            _, number, chunk = self._coming.popleft()
            self.sessions[number].waiting.append(chunk)
        waiting = by_urgency(
            Candidate(str(number), head.due_seconds, head.arrival_seconds, head.started, head.passes_left)
            for number, session in enumerate(self.sessions)
            for head in list(session.waiting)[:1]
        )
        chosen = next_pass(waiting, times, most, self.now)
        assert chosen, "something waits, so something is done"
        assert list(chosen) == waiting[: len(chosen)], "the most urgent go first"
        self.now += times.of(len(chosen))
        self.widths.append(len(chosen))
        for one in chosen:
            self._advance(self.sessions[int(one.session_id)])
        done = [session.done for session in self.sessions]
        self.spread = max(self.spread, max(done) - min(done))

    def _advance(self, session: SimulatedSession) -> None:
        chunk = session.waiting[0]
        chunk.started = True
        chunk.passes_left -= 1
        if not chunk.passes_left:
            chunk.done_seconds = self.now
            session.waiting.popleft()

    def lateness(self, number: int) -> list[float]:
        """Of every chunk of a session: seconds from when it was due to when it was done."""
        return [(chunk.done_seconds or 0.0) - chunk.due_seconds for chunk in self.sessions[number].chunks]


def _chunks(pace: Pace, passes: int) -> list[Chunk]:
    arrivals = [pace.first_seconds + CHUNK_SECONDS * index for index in range(pace.chunks)]
    return [Chunk(arrival, arrival + pace.lead_seconds, passes) for arrival in arrivals]
