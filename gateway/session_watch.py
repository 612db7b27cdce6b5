"""What metrics and traces see of one session: its chunks on their way, what went to the client, how it ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from gateway.audio_format import PcmFormat
from gateway.chunk_record import ChunkRecord
from gateway.metrics import DropReason, GatewayMetrics
from gateway.timeline_output import TimelineChunk
from visavis.contract import FRAME_RATE
from visavis.runtime.tracing import Tracing
from visavis.v1.talking_head_pb2 import VideoSegment


class SessionWatch:
    """One session's view of `GatewayMetrics` and `Tracing`; `close` settles what is left open.

    The session is one trace: a span for itself, below it one for each chunk from the arrival of its audio to its last
    frame's sending, below that those of the stages.
    """

    def __init__(self, metrics: GatewayMetrics, tracing: Tracing, session_id: str, parent: str) -> None:
        """parent: the traceparent that the client sent, or ""."""
        self.metrics: Final = metrics
        self.began = False
        self._tracing = tracing
        self._span = tracing.start("gateway session", parent, attributes={"visavis.session_id": session_id})
        self._open_chunks: dict[int, ChunkRecord] = {}
        self._waiting_responses = 0
        self._sound_seconds = 0.0
        self._frames = 0

    @property
    def traceparent(self) -> str:
        """Of the session's span, for the stages' sessions."""
        return self._span.traceparent

    @property
    def trace_id(self) -> str:
        """For the log; "" where nothing is traced."""
        return (self._span.exemplar or {}).get("trace_id", "")

    def chunk_begins(self, chunk: TimelineChunk) -> ChunkRecord:
        """A chunk goes into the pipeline; its span began when its audio was there."""
        attributes = {
            "visavis.chunk_index": chunk.chunk_index,
            "visavis.epoch": chunk.epoch,
            "visavis.utterance_id": chunk.utterance_id,
            "visavis.idle": chunk.idle,
        }
        span = self._tracing.start("gateway chunk", self.traceparent, attributes=attributes, started=chunk.ready_at)
        record = ChunkRecord.of(chunk, span)
        self._open_chunks[id(record)] = record
        self.metrics.chunks_in_flight(1)
        return record

    def first_frame_written(self, record: ChunkRecord, seconds: float) -> None:
        """The first frame of the session's first speech, `seconds` after the audio it needs."""
        self.metrics.first_frame(seconds, record.span.exemplar)

    def segment_written(self, segment: VideoSegment, audio_format: PcmFormat) -> None:
        """Frames and their sound went to the client."""
        self.metrics.frames_written(len(segment.frames), sum(len(frame.data) for frame in segment.frames))
        self._frames += len(segment.frames)
        self._sound_seconds += len(segment.pcm) / audio_format.bytes_per_sample / audio_format.sample_rate_hz

    def chunk_written(self, record: ChunkRecord) -> None:
        """A chunk's last frame was written."""
        self.metrics.chunk_written(
            record.timing,
            idle=record.chunk.idle,
            late=record.late,
            drift_seconds=self._sound_seconds - self._frames / FRAME_RATE,
            exemplar=record.span.exemplar,
        )
        record.span.note({"visavis.late": record.late})
        self._settle(record)

    def chunk_dropped(self, record: ChunkRecord, reason: DropReason) -> None:
        """Nobody will see a chunk that was in the pipeline."""
        self.metrics.chunk_dropped(reason)
        record.span.note({"visavis.dropped": reason})
        self._settle(record)

    def response_waits(self, change: int) -> None:
        """Responses entered (1) or left (-1) the way to the client."""
        self._waiting_responses += change
        self.metrics.hop_depth("client", change)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The client is sent something inside this block."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.metrics.hop_blocked("client", time.monotonic() - began)

    @contextmanager
    def not_reading(self) -> Iterator[None]:
        """The client's speech is not read inside this block: the buffer is full."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.metrics.speech_blocked(time.monotonic() - began)

    def close(self, code: str, reason: str) -> None:
        """The session ended with a gRPC status and a `VisavisError.reason` ("" for OK)."""
        for record in [*self._open_chunks.values()]:
            self._settle(record, "the session ended")
        self.response_waits(-self._waiting_responses)
        self.metrics.session_ended(code, reason, began=self.began)
        self._span.note({"visavis.code": code, "visavis.frames": self._frames})
        self._span.end(reason)

    def _settle(self, record: ChunkRecord, error: str = "") -> None:
        del self._open_chunks[id(record)]
        self.metrics.chunks_in_flight(-1)
        record.span.end(error)
