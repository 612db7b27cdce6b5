"""Prometheus metrics of a service process, on a port of their own; the logs are in json_logs.

What every service exports is called `visavis_*` and carries its stage as a label; what only the gateway knows is called
`visavis_gateway_*` (gateway/metrics.py). docs/metrics.md explains each. Labels take few values, known beforehand: never
a session, an avatar or an address.
"""

import asyncio
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, Protocol, TypeAlias, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from visavis import __version__
from visavis.runtime.engine import EngineDescription
from visavis.runtime.settings import join_address, split_address

# One edge is exactly one chunk of playout: what lies above it cannot be live.
CHUNK_SECONDS_BUCKETS: Final = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.96, 1.2, 1.6, 2.4, 4.8, 9.6)

Exemplar: TypeAlias = dict[str, str] | None
BlockedSide: TypeAlias = Literal["read", "write"]
LeaseConflict: TypeAlias = Literal["LEASE_HELD", "LEASE_LOST"]
# Why an instance does not take a session that nobody got wrong: these exist from the start, others when they come.
Refusal: TypeAlias = Literal["CAPACITY_EXHAUSTED", "DRAINING", "STAGE_UNAVAILABLE", "STATE_STORE_UNAVAILABLE"]


class WorkerView(Protocol):
    """What the metrics show of a worker; see visavis.runtime.worker.Worker."""

    @property
    def process_id(self) -> int | None: ...

    @property
    def busy_fraction(self) -> float: ...

    @property
    def queue_depth(self) -> int: ...

    @property
    def cache_bytes(self) -> Mapping[str, int]: ...

    @property
    def border_counts(self) -> Mapping[str, int]: ...


class Metrics:
    """The metrics of one service process in a registry of their own; `registry` takes a service's own metrics too."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        # Prometheus would keep a series of its own with the birth of each counter and histogram.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._build_info()
        self.chunk_duration_seconds = self._histogram(
            "visavis_chunk_duration_seconds", "From the arrival of a chunk at the stage to its last answer."
        )
        self.chunk_queued_seconds = self._histogram(
            "visavis_chunk_queued_seconds", "From the arrival of a chunk to the start of its computation."
        )
        self.chunk_computed_seconds = self._histogram(
            "visavis_chunk_computed_seconds", "From the start to the end of a chunk's computation."
        )
        self.sessions = self._counter("visavis_sessions", "Sessions by how they ended (gRPC status).", "code")
        self.slots = self._gauge("visavis_slots", "Sessions that fit at once.")
        self.used_slots = self._gauge("visavis_used_slots", "Sessions that run now.")
        self.chunks_in_flight = self._gauge("visavis_chunks_in_flight", "Chunks taken and not yet answered.")
        self.serving = self._gauge("visavis_serving", "1 while the service's health is SERVING.")
        self.draining = self._gauge("visavis_draining", "1 while the service waits for its last sessions.")
        self.redis_reachable = self._gauge("visavis_redis_reachable", "1 while Redis answers.")
        self._rejected = self._counter(
            "visavis_rejected_sessions", "Sessions that were refused before they began.", "reason", get_args(Refusal)
        )
        self._lease_conflicts = self._counter(
            "visavis_lease_conflicts", "Sessions ended by another's lease.", "reason", get_args(LeaseConflict)
        )
        self._blocked_seconds = self._counter(
            "visavis_blocked_seconds",
            "Time in which sessions were held back: by the stage (read) or by their reader (write).",
            "side",
            get_args(BlockedSide),
        )

    def session_ended(self, code: str, reason: str, *, began: bool) -> None:
        """A session ended with a gRPC status and a `VisavisError.reason` ("" for OK); `began`: it was taken before."""
        self.sessions.labels(self.stage, code).inc()
        if reason in get_args(LeaseConflict):
            self._lease_conflicts.labels(self.stage, reason).inc()
        if reason and not began:
            self._rejected.labels(self.stage, reason).inc()

    def blocked(self, side: BlockedSide, seconds: float) -> None:
        """A session's stream waited: `read` before its next item was taken, `write` until an answer was taken."""
        self._blocked_seconds.labels(self.stage, side).inc(seconds)

    def observe_event_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Exports how many tasks the event loop has, read at each scrape."""
        self._gauge("visavis_event_loop_tasks", "Tasks of the event loop.").set_function(
            lambda: len(asyncio.all_tasks(loop))
        )

    def observe_worker(self, worker: WorkerView) -> None:
        """Exports the worker's load and memory, and what its engine keeps and counts, read at each scrape."""
        self._gauge("visavis_worker_busy_fraction", "Part of the time the worker computes.").set_function(
            lambda: worker.busy_fraction
        )
        self._gauge("visavis_worker_queue_depth", "Commands waiting for the worker.").set_function(
            lambda: worker.queue_depth
        )
        self._gauge("visavis_worker_resident_memory_bytes", "Memory of the worker process.").set_function(
            lambda: resident_memory_bytes(worker.process_id)
        )
        self.registry.register(_EngineFigures(self.stage, worker))

    def describe_model(self, description: EngineDescription) -> None:
        """Exports which model the warm engine runs."""
        labels = ["stage", "model", "fingerprint", "random_weights"]
        info = Gauge("visavis_model_info", "1; the labels say which model runs.", labels, registry=self.registry)
        random_weights = str(description.random_weights).lower()
        info.labels(self.stage, description.model_name, description.model_fingerprint, random_weights).set(1)
        if description.real_time_sessions is not None:
            text = "Sessions that the device was measured to keep in real time when it started."
            self._gauge("visavis_real_time_sessions", text).set(description.real_time_sessions)

    def _build_info(self) -> None:
        labels = ["stage", "version", "python_version"]
        info = Gauge("visavis_build_info", "1; the labels say what runs.", labels, registry=self.registry)
        info.labels(self.stage, __version__, platform.python_version()).set(1)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...] = CHUNK_SECONDS_BUCKETS) -> Histogram:
        family = Histogram(name, text, ["stage"], registry=self.registry, buckets=buckets)
        return family.labels(self.stage)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, ["stage"], registry=self.registry).labels(self.stage)

    def _counter(self, name: str, text: str, label: str, values: tuple[str, ...] = ()) -> Counter:
        family = Counter(name, text, ["stage", label], registry=self.registry)
        for value in values:  # a counter that appears with its first event has no rate for it
            family.labels(self.stage, value)
        return family


class _EngineFigures(Collector):
    """`visavis_cache_bytes` and `visavis_borders_total` of a worker whose engine has them; it says of which kinds."""

    def __init__(self, stage: str, worker: WorkerView) -> None:
        self._stage = stage
        self._worker = worker

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        text = "Keys and values kept on the device: of running sessions (context) and of avatars (sink)."
        cache = GaugeMetricFamily("visavis_cache_bytes", text, labels=["stage", "kind"])
        for kind, byte_count in self._worker.cache_bytes.items():
            cache.add_metric([self._stage, kind], byte_count)
        text = "Sessions that went to a chunk border, by how their state there came about."
        borders = CounterMetricFamily("visavis_borders", text, labels=["stage", "way"])
        for way, count in self._worker.border_counts.items():
            borders.add_metric([self._stage, way], count)
        yield from (family for family in (cache, borders) if family.samples)


class MetricsServer:
    """Serves a registry over HTTP from a thread of its own; port 0 takes a free one."""

    def __init__(self, address: str, registry: CollectorRegistry) -> None:
        host, port = split_address(address)
        self._server, self._thread = start_http_server(port, host, registry)
        self.address = join_address(host, self._server.server_port)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def resident_memory_bytes(process_id: int | None) -> int:
    """Resident memory of a process; 0 where it is gone or the system does not say."""
    try:
        pages = int(Path(f"/proc/{process_id}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    import resource  # POSIX only, as /proc is

    return pages * resource.getpagesize()
