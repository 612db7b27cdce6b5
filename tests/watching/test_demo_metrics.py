"""A real Prometheus over a running system: every documented metric is there, every panel and rule has a value."""

from __future__ import annotations

import asyncio
import math
import time
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.deploy.metrics_page import documented_metrics, metrics_in
from tests.deploy.panel_queries import PanelQuery, panel_queries
from tests.deploy.rules import rules
from tests.patience import PATIENCE_SECONDS
from tests.watching.conftest import WatchedSystem
from tests.watching.events import cause_events
from tests.watching.prometheus import Prometheus, running_prometheus

pytestmark = pytest.mark.system

# Ratios and quantiles of what has not happened here have no value yet; tests of the gateway make it happen.
AFTER_EVENT = {
    ("gateway", "Time of a move, p95"): "a session moves to another instance",
}


@pytest.fixture(scope="module")
def prometheus(watched: WatchedSystem, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Scraping while everything happens."""
    with running_prometheus(tmp_path_factory.mktemp("prometheus"), watched.system.metrics) as prometheus:
        asyncio.run(cause_events(watched, prometheus.wait_for_look))
        prometheus.wait_for_look()
        yield prometheus


def exported(watched: WatchedSystem) -> dict[str, list[Metric]]:
    """What each service exports in OpenMetrics, by the name that queries use; process_ and python_ left out."""
    found: dict[str, list[Metric]] = {}
    for address in watched.system.metrics.values():
        request = urllib.request.Request(
            f"http://{address}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            text = answer.read().decode()
        for family in text_string_to_metric_families(text):  # type: ignore[no-untyped-call]
            if family.name.startswith("visavis_"):
                name = f"{family.name}_total" if family.type == "counter" else family.name
                found.setdefault(name, []).append(family)
    return found


def test_what_is_exported_is_documented_and_the_other_way_round(watched: WatchedSystem, prometheus: Prometheus) -> None:
    page = {metric.name: metric for metric in documented_metrics()}
    found = exported(watched)
    assert set(found) == set(page)
    for name, families in found.items():
        labels = {label for family in families for sample in family.samples for label in sample.labels} - {"le"}
        assert labels == page[name].labels, name
        assert {family.type for family in families} == {page[name].kind}, name
        with_exemplars = any(sample.exemplar for family in families for sample in family.samples)
        assert with_exemplars == page[name].exemplars, name


def test_prometheus_has_every_metric(prometheus: Prometheus) -> None:
    names = set(prometheus.get("label/__name__/values"))
    for metric in documented_metrics():
        series = {f"{metric.name}_bucket", f"{metric.name}_sum", f"{metric.name}_count"}
        assert names >= (series if metric.kind == "histogram" else {metric.name})


def test_every_panel_shows_something(prometheus: Prometheus) -> None:
    empty = [query for query in panel_queries() if not _shows(prometheus, query)]
    unexpected = [query for query in empty if (query.dashboard, query.panel) not in AFTER_EVENT]
    assert not unexpected
    assert {(query.dashboard, query.panel) for query in empty} == set(AFTER_EVENT)


def test_every_rule_is_evaluated_and_every_record_has_a_value(prometheus: Prometheus) -> None:
    states = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(states) == len(rules("record")) + len(rules("alert"))
    assert all(rule["health"] == "ok" for rule in states)
    for rule in rules("record"):
        assert _has_value(prometheus, rule["record"]), rule["record"]
    # An alert that does not fire has no series; what it looks at must have some.
    for rule in rules("alert"):
        for name in metrics_in(rule["expr"]):
            known = next(metric for metric in documented_metrics() if metric.name == name)
            assert prometheus.query(f"{name}_count" if known.kind == "histogram" else name), name


def test_what_happened_was_counted(prometheus: Prometheus) -> None:
    assert _value(prometheus, "sum(visavis_gateway_dropped_chunks_total)") > 0
    # More where a client stood still in the middle of what it said.
    assert _value(prometheus, "sum(visavis_gateway_starved_chunks_total)") >= 1
    assert _value(prometheus, "sum(visavis_gateway_interruption_seconds_count)") == 1
    refused = 'sum(visavis_rejected_sessions_total{reason="CAPACITY_EXHAUSTED",stage="%s"})'
    assert _value(prometheus, refused % "generator") >= 1
    assert _value(prometheus, refused % "gateway") == 1
    assert _value(prometheus, 'sum(visavis_cache_bytes{kind="sink"})') > 0
    assert _value(prometheus, "max_over_time(sum(visavis_used_slots{stage='generator'})[10m:1s])") == 2
    assert _value(prometheus, "sum(visavis_gateway_frames_total)") <= _value(
        prometheus, "sum(visavis_decoder_frames_total)"
    )
    drifted = "sum(visavis_gateway_drift_seconds_count) - sum(visavis_gateway_drift_seconds_bucket{le='0.001'})"
    assert _value(prometheus, drifted) == 0


def test_an_exemplar_leads_from_a_bucket_to_the_trace_of_its_chunk(
    watched: WatchedSystem, prometheus: Prometheus
) -> None:
    now = time.time()
    found = prometheus.get(
        "query_exemplars",
        query='visavis_chunk_duration_seconds_bucket{stage="generator"}',
        start=f"{now - 1800:.0f}",
        end=f"{now:.0f}",
    )
    labels = [exemplar["labels"] for series in found for exemplar in series["exemplars"]]
    assert labels
    spans = watched.collector.wait_for(
        lambda spans: {one["span_id"] for one in labels} <= {span.span_id for span in spans}, PATIENCE_SECONDS
    )
    by_id = {span.span_id: span for span in spans}
    for one in labels:
        assert by_id[one["span_id"]].name == "generator chunk"
        assert by_id[one["span_id"]].trace_id == one["trace_id"]


def _shows(prometheus: Prometheus, query: PanelQuery) -> bool:
    return _has_value(prometheus, query.concrete(rate_interval="10m"))


def _has_value(prometheus: Prometheus, expression: str) -> bool:
    return any(not math.isnan(float(series["value"][1])) for series in prometheus.query(expression))


def _value(prometheus: Prometheus, expression: str) -> float:
    (series,) = prometheus.query(expression)
    return float(series["value"][1])
