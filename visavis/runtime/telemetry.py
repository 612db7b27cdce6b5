"""Prometheus metrics of a service process, on a port of their own; the logs are in json_logs."""

from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from visavis.runtime.settings import join_address, split_address

# One edge is exactly one chunk of playout: what lies above it cannot be live.
CHUNK_SECONDS_BUCKETS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.96, 1.2, 1.6, 2.4, 4.8, 9.6)
FIRST_FRAME_SECONDS_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)


class WorkerView(Protocol):
    """What the metrics show of a worker; see visavis.runtime.worker.Worker."""

    @property
    def process_id(self) -> int | None: ...

    @property
    def busy_fraction(self) -> float: ...

    @property
    def queue_depth(self) -> int: ...


class Metrics:
    """The metrics of one service process in a registry of their own; `registry` takes a service's own metrics too."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.chunk_duration_seconds = self._histogram(
            "visavis_chunk_duration_seconds", "From the arrival of a chunk at the stage to its last answer."
        )
        self.chunk_queued_seconds = self._histogram(
            "visavis_chunk_queued_seconds", "From the arrival of a chunk to the start of its computation."
        )
        self.chunk_computed_seconds = self._histogram(
            "visavis_chunk_computed_seconds", "From the start to the end of a chunk's computation."
        )
        self.time_to_first_frame_seconds = self._histogram(
            "visavis_time_to_first_frame_seconds",
            "From the arrival of the audio that the first chunk needs to its first frame.",
            FIRST_FRAME_SECONDS_BUCKETS,
        )
        self.sessions = Counter(
            "visavis_sessions", "Sessions by how they ended (gRPC status).", ["stage", "code"], registry=self.registry
        )
        self.slots = self._gauge("visavis_slots", "Sessions that fit at once.")
        self.used_slots = self._gauge("visavis_used_slots", "Sessions that run now.")
        self.chunks_in_flight = self._gauge("visavis_chunks_in_flight", "Chunks taken and not yet answered.")
        self.serving = self._gauge("visavis_serving", "1 while the service's health is SERVING.")

    def observe_worker(self, worker: WorkerView) -> None:
        """Exports the worker's load and memory, read at each scrape."""
        self._gauge_of("visavis_worker_busy_fraction", "Part of the time the worker computes.").set_function(
            lambda: worker.busy_fraction
        )
        self._gauge_of("visavis_worker_queue_depth", "Commands waiting for the worker.").set_function(
            lambda: worker.queue_depth
        )
        self._gauge_of("visavis_worker_resident_memory_bytes", "Memory of the worker process.").set_function(
            lambda: resident_memory_bytes(worker.process_id)
        )

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...] = CHUNK_SECONDS_BUCKETS) -> Histogram:
        family = Histogram(name, text, ["stage"], registry=self.registry, buckets=buckets)
        return family.labels(self.stage)

    def _gauge(self, name: str, text: str) -> Gauge:
        return self._gauge_of(name, text)

    def _gauge_of(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, ["stage"], registry=self.registry).labels(self.stage)


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
