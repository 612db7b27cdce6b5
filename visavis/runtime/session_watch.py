"""What metrics and traces see of one session in a stage: each chunk from its arrival to its last answer."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from visavis.runtime.telemetry import BlockedSide, Metrics
from visavis.runtime.tracing import Span, Tracing
from visavis.v1.chunk_pb2 import ChunkHeader, StageTiming


@dataclass(frozen=True, slots=True)
class _Arrival:
    seconds: float
    span: Span


class SessionWatch:
    """Chunks arrive, are answered in order or dropped; `close` drops what is left."""

    def __init__(self, metrics: Metrics, tracing: Tracing, parent: str) -> None:
        """parent: the traceparent of the session's span, for chunks that bring none."""
        self._metrics = metrics
        self._tracing = tracing
        self._parent = parent
        self._arrivals: deque[_Arrival] = deque()

    def arrived(self, header: ChunkHeader) -> None:
        """A chunk is in the stage."""
        attributes = {
            "visavis.chunk_index": header.chunk_index,
            "visavis.epoch": header.epoch,
            "visavis.utterance_id": header.utterance_id,
            "visavis.idle": header.idle,
        }
        parent = header.traceparent or self._parent
        span = self._tracing.start(f"{self._metrics.stage} chunk", parent, attributes=attributes)
        self._arrivals.append(_Arrival(time.monotonic(), span))
        self._metrics.chunks_in_flight.inc()

    def answered(self, timing: StageTiming) -> None:
        """The oldest chunk has its last answer."""
        arrival = self._take()
        queued, computed = timing.queued.ToNanoseconds() / 1e9, timing.computed.ToNanoseconds() / 1e9
        exemplar = arrival.span.exemplar
        self._metrics.chunk_duration_seconds.observe(time.monotonic() - arrival.seconds, exemplar)
        self._metrics.chunk_queued_seconds.observe(queued, exemplar)
        self._metrics.chunk_computed_seconds.observe(computed, exemplar)
        arrival.span.note({"visavis.queued_seconds": queued, "visavis.computed_seconds": computed})
        arrival.span.end()

    def drop_all(self) -> int:
        """No chunk that is in the stage will have an answer; returns how many there were."""
        dropped = len(self._arrivals)
        for _ in range(dropped):
            self._take().span.end("dropped")
        return dropped

    def close(self) -> None:
        """The session is over."""
        self.drop_all()

    @contextmanager
    def blocked(self, side: BlockedSide) -> Iterator[None]:
        """The session waits inside this block: to take its next item (`read`) or for its reader (`write`)."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._metrics.blocked(side, time.monotonic() - began)

    def _take(self) -> _Arrival:
        self._metrics.chunks_in_flight.dec()
        return self._arrivals.popleft()
