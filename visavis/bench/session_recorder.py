"""Keeps the books of one simulated caller: what was to come when, and what came; pure, every time is an argument."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from visavis.bench.conversation import PlannedUtterance
from visavis.bench.load_events import ChunkSeen, ChunksMissing, InterruptionSeen
from visavis.bench.playout import Player
from visavis.client.events import Segment
from visavis.client.formats import AudioFormat
from visavis.contract import CHUNK_SECONDS, FRAME_RATE


@dataclass(slots=True)
class _Spoken:
    planned: PlannedUtterance
    first_chunk_index: int | None = None
    seen: set[int] = field(default_factory=set)
    """Ordinals of its chunks that came."""


@dataclass(slots=True)
class _OpenChunk:
    chunk_index: int
    moment: float
    wait_seconds: float | None
    first: bool
    late_seconds: float
    received_bytes: int = 0


class SessionRecorder:
    """Turns what one session receives into events. Moments are seconds from the start of the run.

    drift_seconds, missing_frames, stale_frames: as in `load_events.SessionOver`.
    """

    def __init__(self, audio_format: AudioFormat, *, buffer_seconds: float) -> None:
        self.player = Player(buffer_seconds=buffer_seconds)
        self.drift_seconds = 0.0
        self.missing_frames = 0
        self.stale_frames = 0
        self._format = audio_format
        self._spoken: list[_Spoken] = []
        self._interruptions: deque[float] = deque()
        self._epoch = 1
        self._next_frame_index: int | None = 1
        self._open: _OpenChunk | None = None

    def speech_begins(self, planned: PlannedUtterance) -> None:
        """The first audio of an utterance is about to be sent; the server counts utterances in this order."""
        self._spoken.append(_Spoken(planned))

    def listener_breaks_in(self, planned_moment: float) -> None:
        """An interruption is about to be sent that was planned for this moment."""
        self._interruptions.append(planned_moment)

    def interrupted(self, epoch: int, moment: float) -> InterruptionSeen:
        """`interrupted` arrived: what is not shown is thrown away, and numbering goes on where the server says."""
        self._epoch = epoch
        self._next_frame_index = None
        self._open = None
        self.player.interrupt()
        planned = self._interruptions.popleft() if self._interruptions else moment
        return InterruptionSeen(moment, moment - planned)

    def played_samples(self, moment: float) -> int:
        """The last sample that a listener has heard by now, in the session's sample rate."""
        return round(self.player.played_seconds(moment) * self._format.sample_rate_hz)

    def segment(self, segment: Segment, moment: float) -> ChunkSeen | None:
        """A segment arrived. Returns its chunk's event when it was the last of it."""
        if segment.epoch < self._epoch:
            self.stale_frames += len(segment.frames)
            return None
        self._check_clocks(segment)
        if self._open is None or self._open.chunk_index != segment.chunk_index:
            self._open = self._begin_chunk(segment, moment)
        chunk = self._open
        chunk.received_bytes += len(segment.pcm) + sum(len(frame.data) for frame in segment.frames)
        if segment.timing is None:
            return None
        self._open = None
        return ChunkSeen(
            chunk.moment, chunk.wait_seconds, chunk.first, chunk.late_seconds, chunk.received_bytes, segment.timing
        )

    def missing(self, moment: float) -> ChunksMissing | None:
        """Chunks that had been complete for a chunk's length at least when the session ended now, and never came."""
        waited = tuple(wait for spoken in self._spoken for wait in _overdue(spoken, moment))
        return ChunksMissing(moment, waited) if waited else None

    def _begin_chunk(self, segment: Segment, moment: float) -> _OpenChunk:
        complete: float | None = None
        first = False
        if 1 <= segment.utterance_id <= len(self._spoken):
            spoken = self._spoken[segment.utterance_id - 1]
            first = spoken.first_chunk_index is None
            if spoken.first_chunk_index is None:
                spoken.first_chunk_index = segment.chunk_index
            ordinal = segment.chunk_index - spoken.first_chunk_index + 1
            spoken.seen.add(ordinal)
            complete = spoken.planned.audio_complete(ordinal)
        late = self.player.show(segment.chunk_index, moment, audio_complete=complete)
        wait = None if complete is None else moment - complete
        return _OpenChunk(segment.chunk_index, moment, wait, first, late)

    def _check_clocks(self, segment: Segment) -> None:
        rate = self._format.sample_rate_hz
        frames_end = segment.presentation_seconds + len(segment.frames) / FRAME_RATE
        pcm_samples = len(segment.pcm) / self._format.bytes_per_sample
        drifts = (
            segment.presentation_seconds - segment.audio_start_sample / rate,
            frames_end - segment.audio_end_sample / rate,
            (segment.audio_end_sample - segment.audio_start_sample - pcm_samples) / rate,
        )
        self.drift_seconds = max(self.drift_seconds, *(abs(drift) for drift in drifts))
        if self._next_frame_index is not None:
            self.missing_frames += abs(segment.first_frame_index - self._next_frame_index)
        self._next_frame_index = segment.first_frame_index + len(segment.frames)


def _overdue(spoken: _Spoken, moment: float) -> list[float]:
    """How long the missing chunks of an utterance have waited."""
    planned = spoken.planned
    until = moment if planned.interrupted_at is None else min(moment, planned.interrupted_at)
    waits = [
        until - planned.audio_complete(ordinal)
        for ordinal in range(1, planned.chunks + 1)
        if ordinal not in spoken.seen
    ]
    return [wait for wait in waits if wait > CHUNK_SECONDS]
