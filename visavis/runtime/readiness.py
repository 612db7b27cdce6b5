"""When a service says SERVING: a pure rule over what is known, and the task that publishes it.

Three questions have an answer each, as a service name of the health protocol. `""` and the service's full name: can it
take traffic? Full is still yes; warming up, draining, hung, or without Redis is no. `startup`: has it warmed up? A
service that waits for Redis has, and must not be restarted for it. `liveness`: does the event loop answer? A hung
worker is killed from inside, and a lost one ends the process, so nothing else needs a restart from outside.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import OVERALL_HEALTH
from grpc_health.v1.health import aio as health_aio

from visavis.runtime.worker import Worker

# Names of the health protocol beside "" and the service's own; for probes.
STARTUP = "startup"
LIVENESS = "liveness"

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass(frozen=True, slots=True)
class Conditions:
    """What readiness depends on."""

    worker_serving: bool
    redis_reachable: bool
    draining: bool

    @property
    def serving(self) -> bool:
        return self.worker_serving and self.redis_reachable and not self.draining


class Readiness:
    """Keeps the health service up to date.

    `first_serving` is set once, when everything is up for the first time.
    """

    LOOK_SECONDS = 0.25

    def __init__(self, grpc_name: str, worker: Worker | None, on_change: Callable[[bool], None]) -> None:
        self.servicer = health_aio.HealthServicer()
        self.first_serving = asyncio.Event()
        self._names = (OVERALL_HEALTH, grpc_name)
        self._worker = worker
        self._on_change = on_change
        self._conditions = Conditions(worker_serving=False, redis_reachable=False, draining=False)
        self._published: dict[str, bool] = {}
        self._changed = asyncio.Event()

    @property
    def serving(self) -> bool:
        return self._conditions.serving

    def note_redis(self, *, reachable: bool) -> None:
        self._conditions = replace(self._conditions, redis_reachable=reachable)
        self._changed.set()

    def note_draining(self) -> None:
        self._conditions = replace(self._conditions, draining=True)
        self._changed.set()

    async def publish_now(self) -> None:
        """Brings the health service up to date with what is known."""
        self._conditions = replace(self._conditions, worker_serving=self._worker_serves())
        changed = self.serving != self._published.get(OVERALL_HEALTH)
        for name, serving in self._answers().items():
            if self._published.get(name) != serving:
                self._published[name] = serving
                await self.servicer.set(name, _SERVING if serving else _NOT_SERVING)
        if changed:
            self._on_change(self.serving)
        if self.serving:
            self.first_serving.set()

    async def publish_forever(self) -> None:
        """Publishes at every change; a worker is looked at four times a second, since nothing tells that it hangs."""
        while True:
            self._changed.clear()
            await self.publish_now()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.LOOK_SECONDS):
                    await self._changed.wait()

    def _answers(self) -> dict[str, bool]:
        started = self._worker is None or self._worker.description is not None
        return {LIVENESS: True, STARTUP: started, **dict.fromkeys(self._names, self.serving)}

    def _worker_serves(self) -> bool:
        worker = self._worker
        return worker is None or (worker.description is not None and not worker.lost.is_set() and not worker.hung)
