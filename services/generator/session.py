"""One session in the generator's engine: where it stands, what waits, what is on its way, whether it leaves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from services.borders import Borders
from services.inbox import Inbox, WaitingChunk
from services.scheduling import Candidate
from visavis.models.generation import ChunkInProgress, GenerationState
from visavis.v1 import generator_pb2


@dataclass(frozen=True, slots=True)
class Replayed:
    """A chunk that was generated before: `[3, 2, D]` and `[3, H, W, C]`."""

    speech_TWD: torch.Tensor
    video_THWC: torch.Tensor


@dataclass(frozen=True, slots=True)
class Started:
    """A chunk on its way; `waiting` is None for one that is replayed, which nobody waits for."""

    waiting: WaitingChunk[torch.Tensor] | None
    progress: ChunkInProgress
    start_seconds: float

    @property
    def answered(self) -> bool:
        """Whether its latents are gone already, and only the context of the next chunk is to be made."""
        return self.waiting is not None and self.progress.latents_ready


@dataclass(slots=True)
class Leaving:
    """The session's state goes to another generator; since `requested_seconds` it begins no chunk."""

    requested_seconds: float
    # None until the chunk in progress is done.
    messages: Iterator[generator_pb2.TransferSessionResponse] | None = None
    # All messages are out; whether they reach the other generator, the service knows.
    complete: bool = False


@dataclass(slots=True)
class Session:
    """Between two steps."""

    borders: Borders[GenerationState, Replayed]
    seed: int
    # Of the last border.
    epoch: int = 1
    inbox: Inbox[torch.Tensor] = field(default_factory=Inbox)
    started: Started | None = None
    leaving: Leaving | None = None

    def candidate(self, session_id: str) -> Candidate | None:
        """What the session has to do next, or None."""
        started = self.started
        if started is not None and started.waiting is not None and not started.answered:
            chunk = started.waiting
            return Candidate(session_id, chunk.deadline_seconds, chunk.arrival_seconds, started=True)
        if started is not None or self.borders.replay:
            # It serves the next chunk, and is due with it.
            return Candidate(session_id, self._next_deadline_seconds, 0.0, started=True)
        if self.leaving is None:
            return self.inbox.candidate(session_id)
        if self.leaving.complete:
            return None
        return Candidate(session_id, self.leaving.requested_seconds, 0.0, started=True)

    @property
    def _next_deadline_seconds(self) -> float:
        leaving = math.inf if self.leaving is None else self.leaving.requested_seconds
        return min(leaving, self.inbox.next_deadline_seconds)

    @property
    def border_index(self) -> int:
        """Of the border that the session stands at, or is being rebuilt for."""
        return self.borders.chunk_index + len(self.borders.replay)

    def finishes_border(self, chunk_index: int) -> bool:
        """Whether the chunk in progress is answered and leads to this border: all that is missing is its last pass."""
        started = self.started
        return started is not None and started.answered and self.borders.chunk_index + 1 == chunk_index
