"""What a service says about itself to be run, and what it gets to work with."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

from visavis.runtime.engine import EngineDescription
from visavis.runtime.leases import LeaseStore
from visavis.runtime.redis_connection import RedisClient
from visavis.runtime.registry import Registry
from visavis.runtime.settings import ServiceSettings
from visavis.runtime.slots import SlotPool
from visavis.runtime.stage import Stage
from visavis.runtime.telemetry import Metrics
from visavis.runtime.tracing import Tracing
from visavis.runtime.worker import Worker


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Where the worker finds its engine."""

    # "module:callable"; the callable takes the settings and returns an Engine.
    factory: str
    # Picklable.
    settings: object


@dataclass(frozen=True, slots=True)
class ServiceRuntime:
    """The parts that `run_service` has built, for the service's handlers."""

    settings: ServiceSettings
    redis: RedisClient
    leases: LeaseStore
    registry: Registry
    slots: SlotPool
    metrics: Metrics
    tracing: Tracing
    # None for a service without an engine (the gateway).
    worker: Worker | None

    @property
    def description(self) -> EngineDescription:
        """What the warm engine says about itself; only after the worker has started."""
        assert self.worker is not None, "this service has no engine"
        self.worker.check_serving()
        assert self.worker.description is not None
        return self.worker.description

    def stage(self) -> Stage:
        """The stream handler over this service's worker and slots."""
        assert self.worker is not None, "this service has no engine"
        return Stage(
            self.worker,
            self.slots,
            self.metrics,
            self.tracing,
            max_in_flight=self.settings.max_in_flight,
            config_timeout_seconds=self.settings.config_timeout_seconds,
        )


# Adds the service's handlers to the server; entered before the server starts, left after it has stopped.
Bind: TypeAlias = Callable[[ServiceRuntime, grpc.aio.Server], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True)
class ServiceDefinition:
    """One of the four services."""

    # In metrics, logs and the registry: "audio_encoder", "generator", "decoder" or "gateway".
    stage: str
    # Full name of the gRPC service, for health and reflection: "visavis.v1.GeneratorService".
    grpc_name: str
    bind: Bind
    # None: no worker process and no heartbeats.
    engine: EngineSpec | None


def bind_servicer(add_to_server: Callable[[Any, Any], Any], create: Callable[[ServiceRuntime], Any]) -> Bind:
    """The `bind` of a service whose servicer needs nothing started or stopped with it.

    `add_to_server` is the generated `add_...Servicer_to_server`.
    """

    @asynccontextmanager
    async def bind(runtime: ServiceRuntime, server: grpc.aio.Server) -> AsyncIterator[None]:
        add_to_server(create(runtime), server)
        yield

    return bind
