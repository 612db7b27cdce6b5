"""What a timeline decides: chunks to make and notices to give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from gateway.input_position import InputPosition


@dataclass(frozen=True, slots=True)
class TimelineChunk:
    """One chunk as it enters the pipeline."""

    epoch: int
    utterance_id: int
    """0 for an idle chunk."""
    chunk_index: int
    samples_S: NDArray[np.float32]
    """[15360], 16 kHz mono."""
    lookahead_S: NDArray[np.float32]
    """[up to 1280], 16 kHz mono."""
    pcm: bytes
    """The client's bytes of the whole chunk, in the client's format."""
    position: InputPosition
    """What of the client's input is used when the chunk ends."""
    ready_at: float
    """When the last audio arrived that the chunk needs; for an idle chunk, when it was issued."""
    due_at: float
    """When its first frame should be shown."""
    follows: bool
    """Whether it should be shown right behind its predecessor, so that it can be late."""

    @property
    def idle(self) -> bool:
        return self.utterance_id == 0


@dataclass(frozen=True, slots=True)
class StarvedNotice:
    """Speech ran dry inside an utterance at this chunk, which was filled with silence or waits."""

    epoch: int
    utterance_id: int
    chunk_index: int
    filled: bool


@dataclass(frozen=True, slots=True)
class UtteranceEndedNotice:
    """Every frame of the utterance has been written."""

    epoch: int
    utterance_id: int
    last_chunk_index: int


Output: TypeAlias = TimelineChunk | StarvedNotice | UtteranceEndedNotice
