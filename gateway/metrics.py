"""What the gateway tells Prometheus beside the metrics of every service."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

from visavis.runtime.telemetry import CHUNK_SECONDS_BUCKETS, Metrics
from visavis.v1.chunk_pb2 import StageTiming
from visavis.v1.talking_head_pb2 import ChunkTiming


class GatewayMetrics:
    """Counts and times chunks. `visavis_chunk_duration_seconds{stage="gateway"}` is the whole way of a chunk, from the
    arrival of its last audio to its last frame's sending, the wait in the speech buffer included."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        registry = metrics.registry
        self._stage_seconds = Histogram(
            "visavis_gateway_stage_seconds",
            "Queued and computed time of a chunk as each stage reports it.",
            ["stage"],
            buckets=CHUNK_SECONDS_BUCKETS,
            registry=registry,
        )
        self._chunks = Counter("visavis_gateway_chunks", "Chunks written, by kind.", ["kind"], registry=registry)
        self._late = Counter("visavis_gateway_late_chunks", "Chunks the player had to wait for.", registry=registry)
        self._starved = Counter(
            "visavis_gateway_starved_chunks", "Chunks for which speech ran dry.", ["policy"], registry=registry
        )
        self._dropped = Counter("visavis_gateway_dropped_chunks", "Chunks an interruption dropped.", registry=registry)

    def first_frame(self, seconds: float) -> None:
        """The first frame of a session's first speech was written, `seconds` after the audio it needs."""
        self._metrics.time_to_first_frame_seconds.observe(seconds)

    def chunk_written(self, timing: ChunkTiming, *, idle: bool, late: bool) -> None:
        """The last frame of a chunk was written."""
        self._metrics.chunk_duration_seconds.observe(timing.total.ToNanoseconds() / 1e9)
        for stage in ("audio_encoder", "generator", "decoder"):
            self._stage_seconds.labels(stage).observe(_seconds(getattr(timing, stage)))
        self._chunks.labels("idle" if idle else "speech").inc()
        if late:
            self._late.inc()

    def chunk_dropped(self) -> None:
        """An interruption made a chunk's frames worthless."""
        self._dropped.inc()

    def starved(self, *, filled: bool) -> None:
        """Speech ran dry inside an utterance."""
        self._starved.labels("fill" if filled else "wait").inc()

    def chunks_in_flight(self, change: int) -> None:
        """Chunks entered (positive) or left (negative) the pipeline."""
        self._metrics.chunks_in_flight.inc(change)

    def session_ended(self, code: str) -> None:
        """A session ended with a gRPC status."""
        self._metrics.sessions.labels(self._metrics.stage, code).inc()


def _seconds(timing: StageTiming) -> float:
    return (timing.queued.ToNanoseconds() + timing.computed.ToNanoseconds()) / 1e9
