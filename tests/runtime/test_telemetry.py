"""JSON logs and metrics."""

import json
import logging
import os
import sys
import urllib.request
from dataclasses import dataclass, field

import pytest

from tests.patience import PATIENCE_SECONDS
from visavis import __version__
from visavis.runtime.engine import EngineDescription
from visavis.runtime.json_logs import JsonFormatter
from visavis.runtime.telemetry import (
    CHUNK_SECONDS_BUCKETS,
    Metrics,
    MetricsServer,
    resident_memory_bytes,
)


def entry_of(message: str = "chunk done", *, error: BaseException | None = None, **extra: object) -> dict[str, object]:
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.makeLogRecord({"name": "a.b", "levelno": logging.INFO, "levelname": "INFO", "msg": message})
    record.exc_info = exc_info
    vars(record).update(extra)
    text = JsonFormatter(stage="generator", instance_id="g1").format(record)
    assert "\n" not in text
    entry: dict[str, object] = json.loads(text)
    return entry


def test_a_log_line_carries_its_place_and_its_fields() -> None:
    entry = entry_of(session_id="s1", chunk_index=3)
    assert entry["event"] == "chunk done"
    assert (entry["stage"], entry["instance_id"], entry["session_id"], entry["chunk_index"]) == (
        "generator",
        "g1",
        "s1",
        3,
    )
    assert str(entry["time"]).endswith("Z")


def test_audio_and_pictures_never_reach_the_log() -> None:
    entry = entry_of(samples=b"\x00\x01", picture=bytearray(3), latents=[0.1, 0.2], session_id="s1")
    assert not {"samples", "picture", "latents"} & set(entry)


def test_an_exception_stays_on_its_line() -> None:
    assert "ValueError: a\nb" in str(entry_of(error=ValueError("a\nb"))["exception"])


def test_one_bucket_edge_is_a_chunk_of_playout() -> None:
    assert 0.96 in CHUNK_SECONDS_BUCKETS
    metrics = Metrics("decoder")
    metrics.chunk_duration_seconds.observe(0.96)
    metrics.chunk_duration_seconds.observe(0.961)
    labels = {"stage": "decoder", "le": "0.96"}
    assert metrics.registry.get_sample_value("visavis_chunk_duration_seconds_bucket", labels) == 1


def test_metrics_of_two_services_in_one_process_do_not_meet() -> None:
    first, second = Metrics("decoder"), Metrics("decoder")
    first.slots.set(3)
    assert second.registry.get_sample_value("visavis_slots", {"stage": "decoder"}) == 0


def test_metrics_are_served_on_a_free_port() -> None:
    metrics = Metrics("decoder")
    server = MetricsServer("127.0.0.1:0", metrics.registry)
    try:
        with urllib.request.urlopen(f"http://{server.address}/metrics", timeout=PATIENCE_SECONDS) as answer:
            text = answer.read().decode()
    finally:
        server.stop()
    assert "visavis_chunk_duration_seconds_count" in text
    assert "process_resident_memory_bytes" in text


def test_resident_memory() -> None:
    if sys.platform == "linux":
        assert resident_memory_bytes(os.getpid()) > 1_000_000
    assert resident_memory_bytes(None) == 0


def test_a_refusal_is_counted_by_its_reason_and_an_end_is_none() -> None:
    metrics = Metrics("generator")
    metrics.session_ended("RESOURCE_EXHAUSTED", "CAPACITY_EXHAUSTED", began=False)
    metrics.session_ended("UNAVAILABLE", "DRAINING", began=True)
    metrics.session_ended("OK", "", began=True)
    value = metrics.registry.get_sample_value
    rejected = "visavis_rejected_sessions_total"
    assert value(rejected, {"stage": "generator", "reason": "CAPACITY_EXHAUSTED"}) == 1
    assert value(rejected, {"stage": "generator", "reason": "DRAINING"}) == 0
    assert value("visavis_sessions_total", {"stage": "generator", "code": "OK"}) == 1


@pytest.mark.parametrize(("reason", "began"), [("LEASE_HELD", False), ("LEASE_LOST", True)])
def test_a_lost_or_held_lease_is_a_conflict(reason: str, began: bool) -> None:
    metrics = Metrics("generator")
    metrics.session_ended("ABORTED", reason, began=began)
    labels = {"stage": "generator", "reason": reason}
    assert metrics.registry.get_sample_value("visavis_lease_conflicts_total", labels) == 1


@dataclass(frozen=True)
class CachingWorker:
    process_id: int = os.getpid()
    busy_fraction: float = 0.5
    queue_depth: int = 2
    cache_bytes: dict[str, int] = field(default_factory=lambda: {"context": 3_000, "sink": 500})
    border_counts: dict[str, int] = field(default_factory=lambda: {"kept": 4, "approximate": 1})


def test_a_worker_is_read_at_each_scrape() -> None:
    metrics = Metrics("generator")
    metrics.observe_worker(CachingWorker())
    value = metrics.registry.get_sample_value
    assert value("visavis_cache_bytes", {"stage": "generator", "kind": "context"}) == 3_000
    assert value("visavis_cache_bytes", {"stage": "generator", "kind": "sink"}) == 500
    assert value("visavis_borders_total", {"stage": "generator", "way": "approximate"}) == 1
    assert value("visavis_worker_queue_depth", {"stage": "generator"}) == 2


def test_what_runs_is_a_label() -> None:
    metrics = Metrics("generator")
    metrics.describe_model(EngineDescription("tiny", "f1", True, 4, 64, 64, 25, ""))
    labels = {"stage": "generator", "model": "tiny", "fingerprint": "f1", "random_weights": "true"}
    assert metrics.registry.get_sample_value("visavis_model_info", labels) == 1
    (build,) = [family for family in metrics.registry.collect() if family.name == "visavis_build_info"]
    assert build.samples[0].labels["version"] == __version__
