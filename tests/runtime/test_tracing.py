"""Spans: free when nobody asks for them, one trace where somebody does."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tests.patience import PATIENCE_SECONDS
from tests.watching.collector import running_collector
from visavis.runtime import tracing as tracing_module
from visavis.runtime.settings import Environment, SettingsError, TracingSettings, read_tracing_settings
from visavis.runtime.tracing import NO_SPAN, NO_TRACING, open_tracing, traceparent_of


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing_module, "FLUSH_SECONDS", PATIENCE_SECONDS)


def settings(**variables: str) -> TracingSettings:
    return read_tracing_settings(Environment({f"VISAVIS_{name}": value for name, value in variables.items()}))


def test_without_an_endpoint_nothing_is_traced_and_nothing_for_it_is_imported() -> None:
    program = """if True:
        import sys
        from visavis.runtime.settings import Environment, read_tracing_settings
        from visavis.runtime.tracing import NO_TRACING, open_tracing
        import visavis.runtime.server
        assert open_tracing(read_tracing_settings(Environment({})), stage="decoder", instance_id="d1") is NO_TRACING
        # Metrics of its own redis-py imports wherever they are installed; spans and exporters nobody does.
        heavy = ("opentelemetry.sdk.trace", "opentelemetry.exporter")
        assert not [name for name in sys.modules if name.startswith(heavy)]
    """
    subprocess.run([sys.executable, "-c", program], check=True)


async def test_a_span_that_is_none_can_do_everything() -> None:
    span = NO_TRACING.start("chunk", attributes={"visavis.chunk_index": 1}, started=1.0)
    assert span is NO_SPAN
    span.note({"visavis.late": True})
    span.end("reason")
    assert (span.traceparent, span.exemplar) == ("", None)
    await NO_TRACING.close()


async def test_spans_reach_the_collector_when_tracing_is_closed() -> None:
    with running_collector() as collector:
        tracing = open_tracing(settings(OTLP_ENDPOINT=collector.endpoint), stage="decoder", instance_id="d1")
        session = tracing.start("decoder session")
        chunk = tracing.start("decoder chunk", session.traceparent, attributes={"visavis.chunk_index": 1})
        chunk.note({"visavis.computed_seconds": 0.25})
        chunk.end()
        session.end("WORKER_LOST")
        session.end()  # once is enough
        await tracing.close()
        spans = {span.name: span for span in collector.spans}
    assert len(collector.spans) == 2
    assert spans["decoder chunk"].parent_id == spans["decoder session"].span_id
    assert spans["decoder chunk"].trace_id == spans["decoder session"].trace_id
    assert spans["decoder chunk"].attributes == {"visavis.chunk_index": 1, "visavis.computed_seconds": 0.25}
    assert spans["decoder session"].failed
    assert not spans["decoder chunk"].failed
    assert spans["decoder session"].service == "decoder"


async def test_what_is_not_sampled_stays_so_in_other_services() -> None:
    with running_collector() as collector:
        gateway = open_tracing(
            settings(OTLP_ENDPOINT=collector.endpoint, TRACE_RATIO="0"), stage="gateway", instance_id="g1"
        )
        decoder = open_tracing(settings(OTLP_ENDPOINT=collector.endpoint), stage="decoder", instance_id="d1")
        session = gateway.start("gateway session")
        assert session.traceparent.endswith("-00")
        assert session.exemplar is None
        chunk = decoder.start("decoder chunk", session.traceparent)
        for span in (chunk, session):
            span.end()
        await gateway.close()
        await decoder.close()
        assert collector.spans == []


async def test_nonsense_in_place_of_a_parent_begins_a_trace() -> None:
    with running_collector() as collector:
        tracing = open_tracing(settings(OTLP_ENDPOINT=collector.endpoint), stage="gateway", instance_id="g1")
        tracing.start("gateway session", "00-nonsense").end()
        await tracing.close()
        (span,) = collector.spans
    assert span.parent_id == ""


async def test_a_collector_that_is_not_there_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing_module, "FLUSH_SECONDS", 0.2)
    tracing = open_tracing(settings(OTLP_ENDPOINT="http://127.0.0.1:1"), stage="gateway", instance_id="g1")
    for _ in range(4_000):  # more than the queue takes
        tracing.start("gateway chunk").end()
    closing = time.monotonic()
    await tracing.close()
    # Left alone, the SDK tries for 10 s with each of the four batches.
    assert time.monotonic() - closing < PATIENCE_SECONDS / 2


@pytest.mark.parametrize("variables", [{"OTLP_ENDPOINT": "collector:4317"}, {"TRACE_RATIO": "1.5"}])
def test_wrong_settings_are_named(variables: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=f"VISAVIS_{next(iter(variables))}"):
        settings(**variables)


def test_an_endpoint_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    with pytest.raises(SettingsError, match=r"install visavis\[tracing\]"):
        open_tracing(settings(OTLP_ENDPOINT="http://127.0.0.1:4317"), stage="gateway", instance_id="g1")


def test_the_parent_is_found_in_a_calls_metadata() -> None:
    assert traceparent_of((("user-agent", "x"), ("traceparent", "00-a-b-01"))) == "00-a-b-01"
    assert traceparent_of((("user-agent", "x"),)) == ""
    assert traceparent_of(None) == ""
