"""What the server's metrics say about a run."""

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, start_http_server

from visavis.bench.metrics_watch import MetricsWatch
from visavis.bench.server_view import MetricsPage, MetricsUnreachable, bucket_percentile, parse_metrics, server_view


class Service:
    """A registry like a service's."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.seconds = Histogram(
            "visavis_chunk_duration_seconds", "-", ["stage"], registry=self.registry, buckets=(0.1, 0.2, 0.4)
        ).labels("decoder")
        self.late = Counter("visavis_gateway_late_chunks", "-", registry=self.registry)
        self.slots = Gauge("visavis_used_slots", "-", registry=self.registry)
        self.other = Counter("python_gc_objects", "-", registry=self.registry)

    def page(self) -> MetricsPage:
        return parse_metrics(generate_latest(self.registry).decode())


def test_only_what_happened_during_the_run_counts() -> None:
    service = Service()
    service.seconds.observe(0.39)
    service.late.inc(5)
    before = service.page()
    for value in [0.05] * 50 + [0.15] * 50:
        service.seconds.observe(value)
    service.late.inc(2)
    service.slots.set(3)
    middle = service.page()
    service.slots.set(1)
    view = server_view("here", [before, middle, service.page()])
    (histogram,) = view.histograms
    assert (histogram.name, histogram.labels, histogram.count) == (
        "visavis_chunk_duration_seconds",
        {"stage": "decoder"},
        100,
    )
    assert histogram.mean == pytest.approx(0.1)
    assert histogram.p50 == pytest.approx(0.1)
    assert histogram.p95 == pytest.approx(0.19)
    assert [(each.name, each.growth) for each in view.counters] == [("visavis_gateway_late_chunks_total", 2)]
    assert [(each.name, each.last, each.highest) for each in view.gauges] == [("visavis_used_slots", 1, 3)]


def test_a_restarted_server_counts_from_zero() -> None:
    one, two = Service(), Service()
    one.late.inc(10)
    two.late.inc(3)
    assert server_view("here", [one.page(), two.page()]).counters[0].growth == 3


def test_percentiles_of_buckets() -> None:
    buckets = [(1.0, 0.0), (2.0, 10.0), (float("inf"), 10.0)]
    assert bucket_percentile(buckets, 0.5) == pytest.approx(1.5)
    assert bucket_percentile([(1.0, 0.0), (float("inf"), 5.0)], 0.5) is None
    assert bucket_percentile([], 0.5) is None


def test_endpoints_are_scraped_and_one_that_is_not_there_is_named() -> None:
    service = Service()
    server, thread = start_http_server(0, "127.0.0.1", service.registry)
    address = f"127.0.0.1:{server.server_port}"
    try:
        with MetricsWatch([address]) as watch:
            service.late.inc()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert watch.views[0].counters[0].growth == 1
    with pytest.raises(MetricsUnreachable, match=address):
        MetricsWatch([address])
