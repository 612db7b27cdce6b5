"""OpenTelemetry spans of one process: where the time of a session's chunks went, over all services.

A span's context travels as text (W3C `traceparent`): in the metadata of a session's streams, and in the header of each
chunk. So parents are explicit everywhere and nothing hangs on the task that happens to run. Without an endpoint (or
unsampled) the same calls do nothing. OpenTelemetry is imported only where there is an endpoint.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from visavis import __version__
from visavis.runtime.settings import SettingsError, TracingSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span as OpenTelemetrySpan

TRACEPARENT: Final = "traceparent"
# What a stopping service waits for its last spans.
FLUSH_SECONDS: Final = 2.0

Attributes: TypeAlias = Mapping[str, str | int | float | bool]


class Span(Protocol):
    """One piece of work. End it once; what is never ended is never seen, and its children have no parent."""

    @property
    def traceparent(self) -> str:
        """For children in other places; "" where nothing is traced."""
        ...

    @property
    def exemplar(self) -> dict[str, str] | None:
        """Labels that lead from a histogram's bucket to this span; None where nobody will find it."""
        ...

    def note(self, attributes: Attributes) -> None:
        """Add what turned out meanwhile."""
        ...

    def end(self, error: str = "") -> None:
        """It ends now; `error` says why it failed. Ending again changes nothing."""
        ...


class Tracing(Protocol):
    """Starts spans."""

    def start(
        self, name: str, parent: str = "", *, attributes: Attributes | None = None, started: float | None = None
    ) -> Span:
        """A span below `parent` (a traceparent; "" begins a trace).

        started: on `time.monotonic()`, where it began before now.
        """
        ...

    async def close(self) -> None:
        """Send what has ended, within `FLUSH_SECONDS`."""
        ...


class _NoSpan:
    """Stands for every span while nothing is traced."""

    traceparent: Final = ""
    exemplar: Final = None

    def note(self, attributes: Attributes) -> None:
        pass

    def end(self, error: str = "") -> None:
        pass


class _NoTracing:
    def start(
        self, name: str, parent: str = "", *, attributes: Attributes | None = None, started: float | None = None
    ) -> Span:
        return NO_SPAN

    async def close(self) -> None:
        pass


NO_SPAN: Final[Span] = _NoSpan()
NO_TRACING: Final[Tracing] = _NoTracing()


class _RecordedSpan:
    def __init__(self, span: OpenTelemetrySpan) -> None:
        self._span = span
        context = span.get_span_context()
        self._ids = {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
        self._sampled = context.trace_flags.sampled

    @property
    def traceparent(self) -> str:
        # An unsampled one is passed on too: or the next service would begin a trace of its own.
        return f"00-{self._ids['trace_id']}-{self._ids['span_id']}-{int(self._sampled):02x}"

    @property
    def exemplar(self) -> dict[str, str] | None:
        return self._ids if self._sampled else None

    def note(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def end(self, error: str = "") -> None:
        if not self._span.is_recording():
            return
        if error:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()


class _OpenTelemetry:
    """Spans go to the collector in batches from a thread of their own; a full queue drops them, nothing waits."""

    def __init__(self, provider: TracerProvider, exporter: SpanExporter) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._exporter = exporter
        self._tracer = provider.get_tracer("visavis", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def start(
        self, name: str, parent: str = "", *, attributes: Attributes | None = None, started: float | None = None
    ) -> Span:
        from opentelemetry.context import Context

        context = self._propagator.extract({TRACEPARENT: parent}, Context())
        start_time = None if started is None else time.time_ns() - round((time.monotonic() - started) * 1e9)
        span = self._tracer.start_span(name, context, attributes=attributes, start_time=start_time)
        return _RecordedSpan(span)

    async def close(self) -> None:
        # The SDK takes no time limit of its own to heart: with a collector that is away it goes on for half a minute.
        # An exporter that is shut down gives up what it is at and what is left.
        giving_up = threading.Timer(FLUSH_SECONDS, self._exporter.shutdown)
        giving_up.daemon = True
        giving_up.start()
        try:
            await asyncio.to_thread(self._provider.shutdown)
        finally:
            giving_up.cancel()


def open_tracing(settings: TracingSettings, *, stage: str, instance_id: str) -> Tracing:
    """Tracing as the settings ask for it. Raises SettingsError where the extra `tracing` is not installed."""
    if not settings.endpoint:
        return NO_TRACING
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError as error:
        raise SettingsError(
            f"VISAVIS_OTLP_ENDPOINT is set and OpenTelemetry is not here ({error}); install visavis[tracing]"
        ) from None
    names = {"service.namespace": "visavis", "service.name": stage, "service.instance.id": instance_id}
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.sampled_ratio)),
        resource=Resource.create({**names, "service.version": __version__}),
        shutdown_on_exit=False,
    )
    exporter = OTLPSpanExporter(endpoint=settings.endpoint, insecure=settings.endpoint.startswith("http://"))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return _OpenTelemetry(provider, exporter)


def traceparent_of(metadata: object) -> str:
    """The traceparent in a call's metadata; "" where there is none."""
    pairs = metadata if isinstance(metadata, tuple | list) else ()
    return next((str(value) for key, value in pairs if key == TRACEPARENT), "")
