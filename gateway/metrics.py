"""What the gateway tells Prometheus beside the metrics of every service; docs/metrics.md explains each."""

from __future__ import annotations

from itertools import product
from typing import Final, Literal, TypeAlias, get_args

from prometheus_client import Counter, Gauge, Histogram

from visavis.contract import CHUNK_SECONDS
from visavis.runtime.telemetry import CHUNK_SECONDS_BUCKETS, Exemplar, Metrics
from visavis.v1.chunk_pb2 import StageTiming
from visavis.v1.talking_head_pb2 import ChunkTiming

STAGES: Final = ("audio_encoder", "generator", "decoder")
FIRST_FRAME_SECONDS_BUCKETS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
INTERRUPTION_SECONDS_BUCKETS: Final = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 0.96, 2.0, 5.0)
MOVE_SECONDS_BUCKETS: Final = (0.05, 0.1, 0.2, 0.4, 0.96, 1.92, 2.88, 5.0, 10.0, 30.0)
REAL_TIME_FACTOR_BUCKETS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5, 2.0, 4.0)
# Frames are 40 ms apart: half a frame is where an ear and an eye begin to disagree about which frame it is.
DRIFT_SECONDS_BUCKETS: Final = (0.001, 0.005, 0.02, 0.04, 0.08, 0.2, 0.96)

# "client": responses on their way to the client. The stages: chunks sent to one.
Hop: TypeAlias = Literal["audio_encoder", "generator", "decoder", "client"]
# How a session came to another instance of a stage: with the exact state, with one rebuilt by replaying, or not at all.
MoveKind: TypeAlias = Literal["exact", "rebuilt", "failed"]
# Asked by a draining instance, or after one was lost.
MoveCause: TypeAlias = Literal["hand_over", "recovery"]
DropReason: TypeAlias = Literal["interruption", "slow_reader"]
Resumption: TypeAlias = Literal["resumed", "refused"]


class GatewayMetrics:
    """Counts and times chunks. `visavis_chunk_duration_seconds{stage="gateway"}` is the whole way of a chunk, from the
    arrival of its last audio to its last frame's sending, the wait in the speech buffer included."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._registry = metrics.registry
        self._first_frame = Histogram(
            "visavis_time_to_first_frame_seconds",
            "From the arrival of the audio that the first chunk needs to its first frame.",
            ["stage"],
            buckets=FIRST_FRAME_SECONDS_BUCKETS,
            registry=self._registry,
        ).labels(metrics.stage)
        self._stage_seconds = Histogram(
            "visavis_gateway_stage_seconds",
            "Queued and computed time of a chunk as each stage reports it.",
            ["stage"],
            buckets=CHUNK_SECONDS_BUCKETS,
            registry=self._registry,
        )
        for stage in STAGES:
            self._stage_seconds.labels(stage)
        self._real_time_factor = Histogram(
            "visavis_gateway_real_time_factor_ratio",
            "Time of the slowest stage for a chunk over the chunk's playout.",
            buckets=REAL_TIME_FACTOR_BUCKETS,
            registry=self._registry,
        )
        self._interruption = Histogram(
            "visavis_gateway_interruption_seconds",
            "From the arrival of an interrupt to the sending of `interrupted`.",
            buckets=INTERRUPTION_SECONDS_BUCKETS,
            registry=self._registry,
        )
        self._drift = Histogram(
            "visavis_gateway_drift_seconds",
            "Sound sent so far minus pictures sent so far, without sign, at each chunk's end.",
            buckets=DRIFT_SECONDS_BUCKETS,
            registry=self._registry,
        )
        self._chunks = self._counter("chunks", "Chunks written, by kind.", kind=("speech", "idle"))
        self._late = self._counter("late_chunks", "Chunks whose audio was there and which the player had to wait for.")
        self._starved = self._counter(
            "starved_chunks", "Chunks for which the client's speech ran dry.", policy=("wait", "fill")
        )
        self._dropped = self._counter("dropped_chunks", "Chunks nobody will see.", reason=get_args(DropReason))
        self._frames = self._counter("frames", "Frames written.")
        self._frame_bytes = self._counter("frame_bytes", "Bytes of the frames written.")
        self._observe_hops()
        self._observe_survival()

    def _observe_hops(self) -> None:
        self._hop_depth = Gauge(
            "visavis_gateway_hop_depth",
            "Messages on a hop: chunks that a stage owes, responses that wait for their client.",
            ["hop"],
            registry=self._registry,
        )
        self._hop_blocked = self._counter(
            "hop_blocked_seconds", "Time in which senders waited for the other end of a hop.", hop=get_args(Hop)
        )
        for hop in get_args(Hop):
            self._hop_depth.labels(hop)
        self._speech_blocked = self._counter(
            "speech_blocked_seconds", "Time in which clients were not read because their speech buffer was full."
        )

    def _observe_survival(self) -> None:
        self._hand_overs = self._counter(
            "hand_overs", "Sessions moved away from a draining instance.", stage=STAGES, kind=get_args(MoveKind)
        )
        self._recoveries = self._counter(
            "recoveries", "Sessions moved away from a lost instance.", stage=STAGES, kind=get_args(MoveKind)
        )
        self._move_seconds = Histogram(
            "visavis_gateway_move_seconds",
            "From the decision to move a session to the new instance's readiness.",
            ["stage", "cause"],
            buckets=MOVE_SECONDS_BUCKETS,
            registry=self._registry,
        )
        for stage in STAGES:
            for cause in get_args(MoveCause):
                self._move_seconds.labels(stage, cause)
        self._resumed = self._counter(
            "resumed_sessions", "Streams that asked to go on with a session.", result=get_args(Resumption)
        )
        self._checkpoints = self._counter(
            "checkpoints", "Checkpoints of sessions, by what became of them.", result=("written", "failed")
        )
        self._checkpoint_bytes = self._counter("checkpoint_bytes", "Bytes of the checkpoints written to Redis.")

    def first_frame(self, seconds: float, exemplar: Exemplar = None) -> None:
        """The first frame of a session's first speech was written, `seconds` after the audio it needs."""
        self._first_frame.observe(seconds, exemplar)

    def frames_written(self, frames: int, byte_count: int) -> None:
        """Frames went to the client."""
        self._frames.inc(frames)
        self._frame_bytes.inc(byte_count)

    def chunk_written(
        self, timing: ChunkTiming, *, idle: bool, late: bool, drift_seconds: float = 0.0, exemplar: Exemplar = None
    ) -> None:
        """The last frame of a chunk was written."""
        self._metrics.chunk_duration_seconds.observe(timing.total.ToNanoseconds() / 1e9, exemplar)
        seconds = [_seconds(getattr(timing, stage)) for stage in STAGES]
        for stage, stage_seconds in zip(STAGES, seconds, strict=True):
            self._stage_seconds.labels(stage).observe(stage_seconds, exemplar)
        self._real_time_factor.observe(max(seconds) / CHUNK_SECONDS, exemplar)
        self._drift.observe(abs(drift_seconds))
        self._chunks.labels("idle" if idle else "speech").inc()
        if late:
            self._late.inc()

    def chunk_dropped(self, reason: DropReason = "interruption", chunks: int = 1) -> None:
        """Frames of chunks became worthless, or will never be computed."""
        self._dropped.labels(reason).inc(chunks)

    def interrupted(self, seconds: float, exemplar: Exemplar = None) -> None:
        """`interrupted` was written, `seconds` after the interrupt arrived."""
        self._interruption.observe(seconds, exemplar)

    def starved(self, *, filled: bool) -> None:
        """Speech ran dry inside an utterance."""
        self._starved.labels("fill" if filled else "wait").inc()

    def chunks_in_flight(self, change: int) -> None:
        """Chunks entered (positive) or left (negative) the pipeline."""
        self._metrics.chunks_in_flight.inc(change)

    def hop_depth(self, hop: Hop, change: int) -> None:
        """Messages entered (positive) or left (negative) a hop."""
        self._hop_depth.labels(hop).inc(change)

    def hop_blocked(self, hop: Hop, seconds: float) -> None:
        """A sender waited for the other end of a hop."""
        self._hop_blocked.labels(hop).inc(seconds)

    def speech_blocked(self, seconds: float) -> None:
        """A client was not read because its speech buffer was full."""
        self._speech_blocked.inc(seconds)

    def moved(self, cause: MoveCause, stage: str, kind: MoveKind, seconds: float) -> None:
        """A session went (or failed to go) to another instance of a stage, `seconds` after that was decided."""
        counter = self._hand_overs if cause == "hand_over" else self._recoveries
        counter.labels(stage, kind).inc()
        if kind != "failed":
            self._move_seconds.labels(stage, cause).observe(seconds)

    def resumed(self, result: Resumption) -> None:
        """A stream asked to go on with a session."""
        self._resumed.labels(result).inc()

    def checkpoint_written(self, byte_count: int) -> None:
        """A checkpoint went to Redis."""
        self._checkpoints.labels("written").inc()
        self._checkpoint_bytes.inc(byte_count)

    def checkpoint_failed(self) -> None:
        """A checkpoint did not get to Redis; the session goes on, its next one replaces it."""
        self._checkpoints.labels("failed").inc()

    def session_ended(self, code: str, reason: str = "", *, began: bool = True) -> None:
        """A session ended with a gRPC status and a `VisavisError.reason`; `began`: `started` had been written."""
        self._metrics.session_ended(code, reason, began=began)

    def _counter(self, name: str, text: str, **labels: tuple[str, ...]) -> Counter:
        """A counter `visavis_gateway_{name}`; every combination of the labels' values exists from the start."""
        counter = Counter(f"visavis_gateway_{name}", text, [*labels], registry=self._registry)
        for values in product(*labels.values()) if labels else ():
            counter.labels(*values)
        return counter


def _seconds(timing: StageTiming) -> float:
    return (timing.queued.ToNanoseconds() + timing.computed.ToNanoseconds()) / 1e9
