"""The chunks of one session that wait in a worker, with the times that scheduling and telemetry need."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from services.scheduling import Candidate
from visavis.v1 import chunk_pb2

Payload = TypeVar("Payload")


@dataclass(frozen=True, slots=True)
class WaitingChunk(Generic[Payload]):
    """A chunk and when it arrived and is due, in seconds of the monotonic clock."""

    header: chunk_pb2.ChunkHeader
    payload: Payload
    arrival_seconds: float
    deadline_seconds: float


@dataclass(slots=True)
class Inbox(Generic[Payload]):
    """First in, first out. The stage handler bounds how many chunks a session may have in flight."""

    waiting: deque[WaitingChunk[Payload]] = field(default_factory=deque)

    def put(self, header: chunk_pb2.ChunkHeader, payload: Payload, arrival_seconds: float) -> None:
        """Adds the session's next chunk; its deadline counts from its arrival."""
        time_left = header.time_to_deadline
        deadline_seconds = arrival_seconds + time_left.seconds + time_left.nanos * 1e-9
        self.waiting.append(WaitingChunk(header, payload, arrival_seconds, deadline_seconds))

    def take(self) -> WaitingChunk[Payload]:
        """Removes and returns the oldest chunk."""
        return self.waiting.popleft()

    def clear(self) -> None:
        """Drops what waits."""
        self.waiting.clear()

    @property
    def next_deadline_seconds(self) -> float:
        """When the oldest chunk is due; never, where nothing waits."""
        return self.waiting[0].deadline_seconds if self.waiting else math.inf

    def candidate(self, session_id: str, passes: int = 1) -> Candidate | None:
        """The oldest chunk as the scheduler sees it, or None when nothing waits; `passes`: what a chunk takes."""
        if not self.waiting:
            return None
        oldest = self.waiting[0]
        return Candidate(session_id, oldest.deadline_seconds, oldest.arrival_seconds, False, passes)

    def candidate_before(self, session_id: str, passes: int) -> Candidate:
        """What has to be done in `passes` passes before the oldest chunk can begin, and is due with it."""
        arrival_seconds = self.waiting[0].arrival_seconds if self.waiting else -math.inf
        return Candidate(session_id, self.next_deadline_seconds, arrival_seconds, True, passes)


def stage_timing(arrival_seconds: float, start_seconds: float, end_seconds: float) -> chunk_pb2.StageTiming:
    """Returns what a stage spent on one chunk, from three readings of the monotonic clock."""
    timing = chunk_pb2.StageTiming()
    timing.queued.FromNanoseconds(round((start_seconds - arrival_seconds) * 1e9))
    timing.computed.FromNanoseconds(round((end_seconds - start_seconds) * 1e9))
    return timing
