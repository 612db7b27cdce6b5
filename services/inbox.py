"""The chunks of one session that wait in a worker, with the times that scheduling and telemetry need."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from services.scheduling import Candidate
from visavis.v1 import chunk_pb2


class ChunkItem(Protocol):
    """A message that carries one chunk."""

    @property
    def header(self) -> chunk_pb2.ChunkHeader:
        """Which chunk it is, and when it is due."""
        ...


Item = TypeVar("Item", bound=ChunkItem)


@dataclass(frozen=True, slots=True)
class WaitingChunk(Generic[Item]):
    """A chunk and when it arrived and is due, in seconds of the monotonic clock."""

    item: Item
    arrival_seconds: float
    deadline_seconds: float


@dataclass(slots=True)
class Inbox(Generic[Item]):
    """First in, first out. The stage handler bounds how many chunks a session may have in flight."""

    waiting: deque[WaitingChunk[Item]] = field(default_factory=deque)

    def put(self, item: Item, arrival_seconds: float) -> None:
        """Adds the session's next chunk; its deadline counts from its arrival."""
        time_left = item.header.time_to_deadline.ToTimedelta().total_seconds()
        self.waiting.append(WaitingChunk(item, arrival_seconds, arrival_seconds + time_left))

    def take(self) -> WaitingChunk[Item]:
        """Removes and returns the oldest chunk."""
        return self.waiting.popleft()

    def candidate(self, session_id: str) -> Candidate | None:
        """The oldest chunk as the scheduler sees it, or None when nothing waits."""
        if not self.waiting:
            return None
        oldest = self.waiting[0]
        return Candidate(session_id, oldest.deadline_seconds, oldest.arrival_seconds, started=False)


def stage_timing(arrival_seconds: float, start_seconds: float, end_seconds: float) -> chunk_pb2.StageTiming:
    """Returns what a stage spent on one chunk, from three readings of the monotonic clock."""
    timing = chunk_pb2.StageTiming()
    timing.queued.FromNanoseconds(round((start_seconds - arrival_seconds) * 1e9))
    timing.computed.FromNanoseconds(round((end_seconds - start_seconds) * 1e9))
    return timing
