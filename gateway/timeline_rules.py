"""What is decided about a timeline before it begins."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.input_position import BEGINNING, InputPosition


@dataclass(frozen=True, slots=True)
class TimelineRules:
    """What the session decided about silence, starvation and pace, and the bounds the server sets."""

    live_when_idle: bool
    fill_when_starved: bool
    window_chunks: int
    """Chunks that may be in the pipeline at once, counted until `chunk_finished`."""
    speech_buffer_bytes: int
    """Speech kept, in the client's format, before `accepts_audio` turns false."""
    idle_lead_seconds: float
    """How long before its playout an idle chunk is issued."""
    idle_start_seconds: float
    """How long a new session waits for speech before its first idle chunk."""
    starvation_grace_seconds: float
    """Speech has run dry when the next chunk is due and nothing arrived for this long."""
    speech_lead_seconds: float | None = None
    """How long before its playout a chunk of speech is issued at the earliest; None: as soon as the window has room."""


@dataclass(frozen=True, slots=True)
class TimelineStart:
    """The border where a timeline begins: that of a new session, or where a resumed one goes on."""

    epoch: int = 1
    chunk_index: int = 0
    """The last chunk that exists already."""
    position: InputPosition = BEGINNING
    """What was used up to the border; the input that follows comes by `feed` and its like."""
    in_utterance: bool = False
    """Whether an utterance is open at the border."""
    again: InputPosition | None = None
    """The position at the end of the next chunk, where that one was issued before and must hold the same input."""
