"""An OpenTelemetry collector as far as tests need one: the real protocol, the spans kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """One span as it was exported; ids in hexadecimal, `parent_id` "" for a root."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_nanoseconds: int
    end_nanoseconds: int
    failed: bool
    attributes: dict[str, Any]


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what services export to `endpoint`."""

    def __init__(self) -> None:
        self.endpoint = ""
        self._spans: list[ReceivedSpan] = []
        self._lock = threading.Lock()

    @property
    def spans(self) -> list[ReceivedSpan]:
        """Everything so far."""
        with self._lock:
            return list(self._spans)

    def wait_for(self, enough: Callable[[list[ReceivedSpan]], bool], seconds: float) -> list[ReceivedSpan]:
        """The spans once they are enough, or those that are there after so many seconds."""
        deadline = time.monotonic() + seconds
        while not enough(spans := self.spans) and time.monotonic() < deadline:
            time.sleep(0.05)
        return spans

    def Export(self, request: Any, context: Any) -> Any:
        """The collector's one method."""
        found = [
            _received(_value_of(resource.resource.attributes, "service.name"), span)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        with self._lock:
            self._spans += found
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def running_collector() -> Iterator[Collector]:
    """A collector on a free port."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(0).wait()


def _received(service: Any, span: Any) -> ReceivedSpan:
    return ReceivedSpan(
        service=str(service),
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start_nanoseconds=span.start_time_unix_nano,
        end_nanoseconds=span.end_time_unix_nano,
        failed=span.status.code == 2,
        attributes={pair.key: _plain(pair.value) for pair in span.attributes},
    )


def _value_of(attributes: Any, key: str) -> Any:
    return next(_plain(pair.value) for pair in attributes if pair.key == key)


def _plain(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))
