"""Memory and processor time of services while something runs."""

import os
import resource
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psutil

SAMPLE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class ResourceUse:
    """Of one service with its worker.

    peak_rss_bytes: highest sum of resident memory over its processes (pages that they share count in each).
    cpu_seconds: user and system time that they used while watched.
    """

    peak_rss_bytes: int
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class MachineUse:
    """Of the whole machine while something ran: whether the figures are disturbed.

    available_cpu_seconds: of all cores. services and clients: what was measured and who asked for it. others:
    everything else, time stolen by the host included; a benchmark means little where this is not small.
    """

    available_cpu_seconds: float
    services_cpu_seconds: float
    clients_cpu_seconds: float
    others_cpu_seconds: float

    @property
    def others_share(self) -> float:
        """What others took of all that there was."""
        return self.others_cpu_seconds / self.available_cpu_seconds


class MachineClock:
    """Counts processor time of the machine and of this process's ended children, from its making."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._busy = _busy_cpu_seconds()
        self._clients = _children_cpu_seconds()

    def use(self, services: Mapping[str, ResourceUse]) -> MachineUse:
        """Since then; `services` is what they used in the same time."""
        services_seconds = sum(each.cpu_seconds for each in services.values())
        clients_seconds = _children_cpu_seconds() - self._clients
        busy_seconds = _busy_cpu_seconds() - self._busy
        return MachineUse(
            available_cpu_seconds=(time.monotonic() - self._begin) * (os.cpu_count() or 1),
            services_cpu_seconds=services_seconds,
            clients_cpu_seconds=clients_seconds,
            others_cpu_seconds=max(0.0, busy_seconds - services_seconds - clients_seconds),
        )


class ResourceWatch:
    """Samples process trees in a thread, for `with`; `use` has the figures afterwards."""

    def __init__(self, process_ids: Mapping[str, int]) -> None:
        self._roots = {name: psutil.Process(pid) for name, pid in process_ids.items()}
        self._peaks = dict.fromkeys(process_ids, 0)
        self._cpu_before = dict.fromkeys(process_ids, 0.0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_stopped, name="visavis-resources", daemon=True)
        self.use: dict[str, ResourceUse] = {}

    def __enter__(self) -> Self:
        self._cpu_before = {name: tree_cpu_seconds(root) for name, root in self._roots.items()}
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()
        for name, root in self._roots.items():
            used = tree_cpu_seconds(root) - self._cpu_before[name]
            self.use[name] = ResourceUse(self._peaks[name], used)

    def _sample_until_stopped(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        for name, root in self._roots.items():
            self._peaks[name] = max(self._peaks[name], tree_rss_bytes(root))


def tree_rss_bytes(root: psutil.Process) -> int:
    """Resident memory of a process and its descendants; 0 for one that is gone."""
    total = 0
    for process in _tree(root):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def tree_cpu_seconds(root: psutil.Process) -> float:
    """User and system time of a process and its living descendants."""
    total = 0.0
    for process in _tree(root):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def _busy_cpu_seconds() -> float:
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)


def _children_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _tree(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
