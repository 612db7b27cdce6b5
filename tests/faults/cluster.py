"""A whole visavis of real processes with two instances of each service, links between all parts, and restarts.

As on Kubernetes, whatever ends is started again; unlike there, ports stay the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from tests.faults.link import Link
from tests.reserved_port import reserved_port
from visavis.cli import die_with_parent
from visavis.cli.local_system import default_settings, service_environment
from visavis.cli.service_programs import service_command
from visavis.runtime.embedded_redis import EmbeddedRedis

SERVICES: Final = ("audio-encoder", "generator", "decoder", "gateway")
START_SECONDS: Final = 300.0
HEARTBEAT_SECONDS: Final = 0.5
# One thread each, and quick to notice what happens, so that a run of minutes sees many faults.
ENVIRONMENT: Final = {
    "VISAVIS_WORKER_THREADS": "1",
    "VISAVIS_SLOTS": "16",
    "VISAVIS_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
    "VISAVIS_LEASE_SECONDS": "3",
    "VISAVIS_REDIS_TIMEOUT_SECONDS": "1",
    "VISAVIS_DRAIN_SECONDS": "8",
    "VISAVIS_WORKER_HANG_SECONDS": "5",
    "VISAVIS_STAGE_STALL_SECONDS": "5",
    "VISAVIS_RECOVERY_SECONDS": "30",
    "VISAVIS_RESUME_WINDOW_SECONDS": "60",
    "VISAVIS_CHECKPOINT_CHUNKS": "2",
}


@dataclass(slots=True)
class Instance:
    """One service on its port, started again whenever it ends."""

    service: str
    name: str
    port: int
    link: Link
    environment: Mapping[str, str]
    folder: Path
    starts: int = 0
    _popen: subprocess.Popen[bytes] | None = None
    _keeper: asyncio.Task[None] | None = None
    _output: Path = field(default_factory=Path)

    @property
    def ready(self) -> bool:
        """Whether its present process has said so and still runs."""
        running = self._popen is not None and self._popen.poll() is None
        return running and any(_is_ready_line(line) for line in self._output.read_bytes().splitlines())

    @property
    def metrics_address(self) -> str:
        """host:port of its metrics, once it is ready."""
        line = next(filter(_is_ready_line, self._output.read_bytes().splitlines()))
        return str(json.loads(line)["metrics"])

    def start(self) -> None:
        """Starts it, and keeps it running."""
        self._keeper = asyncio.create_task(self._keep())

    async def wait_ready(self) -> None:
        """Waits for the ready line. TimeoutError when it does not come."""
        async with asyncio.timeout(START_SECONDS):
            while not self.ready:  # noqa: ASYNC110  # another process: there is nothing to wait on
                await asyncio.sleep(0.05)

    def process(self) -> psutil.Process | None:
        """The service's own process, or None while it is away."""
        return self._alive(self._popen.pid if self._popen is not None else None)

    def worker(self) -> psutil.Process | None:
        """The process that computes, or None while it is away; the gateway has none."""
        process = self.process()
        with contextlib.suppress(psutil.NoSuchProcess):
            return next(iter(process.children()), None) if process is not None else None
        return None

    async def stop(self) -> None:
        """Ends it for good."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._popen is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._popen.pid, signal.SIGKILL)
            await asyncio.to_thread(self._popen.wait)

    async def _keep(self) -> None:
        while True:
            self._launch()
            while self._popen is not None and self._popen.poll() is None:  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.05)
            assert self._popen is not None
            with contextlib.suppress(ProcessLookupError):  # a worker that outlived its service would be a finding
                os.killpg(self._popen.pid, 0)
                await asyncio.sleep(1.0)
                os.killpg(self._popen.pid, signal.SIGKILL)

    def _launch(self) -> None:
        self.starts += 1
        self._output = self.folder / f"{self.name}.{self.starts}.out"
        launcher = [sys.executable, "-S", "-E", die_with_parent.__file__, str(os.getpid())]
        with self._output.open("wb") as output, (self.folder / f"{self.name}.log").open("ab") as log:
            self._popen = subprocess.Popen(
                [*launcher, *service_command(self.service)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                env=dict(self.environment),
                start_new_session=True,
            )

    @staticmethod
    def _alive(pid: int | None) -> psutil.Process | None:
        if pid is None:
            return None
        try:
            process = psutil.Process(pid)
            return process if process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


@dataclass(slots=True)
class Cluster:
    """What runs."""

    redis: EmbeddedRedis
    redis_link: Link
    instances: list[Instance]

    @property
    def gateway_addresses(self) -> list[str]:
        """Where clients connect: through links."""
        return [each.link.address for each in self.instances if each.service == "gateway"]

    def of(self, service: str) -> list[Instance]:
        """The instances of a service."""
        return [each for each in self.instances if each.service == service]

    @property
    def links(self) -> list[Link]:
        """Every link."""
        return [self.redis_link, *(each.link for each in self.instances)]


@asynccontextmanager
async def running_cluster(folder: Path, chance: random.Random, *, copies: int = 2) -> AsyncIterator[Cluster]:
    """Starts everything and waits until it is ready; afterwards nothing is left but logs in `folder`."""
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(EmbeddedRedis(data_folder=folder / "valkey"))
        redis_link = await stack.enter_async_context(Link("redis", redis.port, chance))
        instances = []
        for service in SERVICES:
            for number in range(1, copies + 1):
                # Before a service starts and while it is away, nobody else gets its port.
                port = stack.enter_context(reserved_port())
                name = f"{service}-{number}"
                link = await stack.enter_async_context(Link(name, port, chance))
                environment = _environment(service, name, port, link, redis_link)
                instances.append(Instance(service, name, port, link, environment, folder))
        for instance in instances:
            instance.start()
            stack.push_async_callback(instance.stop)
        await asyncio.gather(*(instance.wait_ready() for instance in instances))
        yield Cluster(redis, redis_link, instances)


def _environment(service: str, name: str, port: int, link: Link, redis_link: Link) -> dict[str, str]:
    return {
        **service_environment(default_settings("tiny"), service, f"redis://{redis_link.address}/0"),
        **ENVIRONMENT,
        "VISAVIS_INSTANCE_ID": name,
        "VISAVIS_LISTEN_ADDRESS": f"127.0.0.1:{port}",
        "VISAVIS_ADVERTISE_ADDRESS": link.address,
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "0",
    }


def _is_ready_line(line: bytes) -> bool:
    with contextlib.suppress(ValueError):
        message = json.loads(line)
        return isinstance(message, dict) and message.get("event") == "ready"
    return False


async def until(condition: Callable[[], bool | Awaitable[bool]], seconds: float) -> bool:
    """Whether a condition becomes true; it is asked for so long."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer if isinstance(answer, bool) else await answer:
            return True
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.1)
