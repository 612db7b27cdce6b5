"""One session in the generator's engine: where it stands, what waits, what is on its way, whether it leaves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

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
        started, steps = self.started, self.borders.state.plan.schedule.steps
        if started is not None and started.waiting is not None and not started.answered:
            chunk, left = started.waiting, steps - started.progress.passes_done
            return Candidate(session_id, chunk.deadline_seconds, chunk.arrival_seconds, True, left)
        if started is not None or self.borders.replay:
            # Contexts, one pass each: they serve the next chunk, and are due with it.
            contexts = len(self.borders.replay) + (started is not None)
            return self._before_next(session_id, contexts + (steps if self.inbox.waiting else 0))
        if self.leaving is None:
            return self.inbox.candidate(session_id, steps)
        return self._before_next(session_id, 1) if self.state_leaves else None

    @property
    def state_leaves(self) -> bool:
        """Whether messages of its state are what comes next: nothing is computed before it goes."""
        between_chunks = self.started is None and not self.borders.replay
        return between_chunks and self.leaving is not None and not self.leaving.complete

    def _before_next(self, session_id: str, passes: int) -> Candidate:
        candidate = self.inbox.candidate_before(session_id, passes)
        if self.leaving is None:
            return candidate
        deadline_seconds = min(self.leaving.requested_seconds, candidate.deadline_seconds)
        return replace(candidate, deadline_seconds=deadline_seconds, arrival_seconds=-math.inf)

    def settle(self) -> None:
        """After a pass: where the chunk in progress is done, the session stands behind it."""
        if self.started is not None and self.started.progress.done:
            _, state = self.started.progress.result()
            self.borders.move_on(state)
            self.started = None

    @property
    def border_index(self) -> int:
        """Of the border that the session stands at, or is being rebuilt for."""
        return self.borders.chunk_index + len(self.borders.replay)

    def finishes_border(self, chunk_index: int) -> bool:
        """Whether the chunk in progress is answered and leads to this border: all that is missing is its last pass."""
        started = self.started
        return started is not None and started.answered and self.borders.chunk_index + 1 == chunk_index
