"""Runs one service process: worker, gRPC server, health, reflection, metrics, heartbeats, draining."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeAlias

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH_NAME
from grpc_reflection.v1alpha import reflection

from visavis.runtime.channels import create_server
from visavis.runtime.errors import Draining, StateStoreUnavailable, VisavisError
from visavis.runtime.freed_memory import return_freed_memory_forever
from visavis.runtime.json_logs import configure_logging
from visavis.runtime.leases import LeaseStore
from visavis.runtime.operations import Operations
from visavis.runtime.pod_deletion_cost import PodDeletionCost
from visavis.runtime.readiness import Readiness
from visavis.runtime.redis_connection import RedisClient, connect_redis, redis_reply
from visavis.runtime.registry import Registry, StageInstance
from visavis.runtime.service import ServiceDefinition, ServiceRuntime
from visavis.runtime.settings import (
    Environment,
    ServiceSettings,
    SettingsError,
    join_address,
    split_address,
)
from visavis.runtime.slots import SlotPool
from visavis.runtime.telemetry import Metrics, MetricsServer
from visavis.runtime.tls import server_credentials
from visavis.runtime.tracing import open_tracing
from visavis.runtime.worker import Worker
from visavis.v1.operations_pb2_grpc import add_OperationsServiceServicer_to_server

# What evicted sessions get to write their status, and what answers in flight get to be sent.
CLOSING_SECONDS = 1.0
OPERATIONS_NAME = "visavis.v1.OperationsService"
WILDCARD_HOSTS = ("0.0.0.0", "::", "*")

StartTask: TypeAlias = Callable[[Coroutine[Any, Any, None]], None]

logger = logging.getLogger(__name__)


def run_main(build: Callable[[Environment], tuple[ServiceDefinition, ServiceSettings]]) -> int:
    """The `main` of a service: settings from the environment, then `run_service`; 2 for wrong settings."""
    try:
        definition, settings = build(Environment.of_process())
    except SettingsError as error:
        print(json.dumps({"level": "ERROR", "event": str(error)}), file=sys.stderr)
        return 2
    return run_service(definition, settings)


def run_service(definition: ServiceDefinition, settings: ServiceSettings) -> int:
    """Runs until SIGTERM or SIGINT (drains, returns 0) or until the worker is lost (returns 1).

    `OperationsService.Drain` ends it as the first signal does. Prints one JSON line on stdout when ready: event, stage,
    instance_id, address, metrics and, where there are any, health and operations. Logs go to stderr. A second signal
    ends the process at once.
    """
    configure_logging(stage=definition.stage, instance_id=settings.instance_id, level=settings.log_level)
    try:
        return asyncio.run(Service(definition, settings).run())
    except Exception:
        logger.exception("the service cannot run")
        return 1


class Service:
    """One running service; `run_service` with its parts."""

    def __init__(self, definition: ServiceDefinition, settings: ServiceSettings) -> None:
        self._definition = definition
        self._settings = settings
        self._stop = asyncio.Event()
        self._signalled = False
        self._metrics = Metrics(definition.stage)
        self._tracing = open_tracing(settings.tracing, stage=definition.stage, instance_id=settings.instance_id)
        self._slots = SlotPool(settings.slots, retry_after_seconds=settings.retry_after_seconds)
        self._worker = self._create_worker()
        self._readiness = Readiness(definition.grpc_name, self._worker, self._note_serving)
        self._addresses: dict[str, str] = {}

    async def run(self) -> int:
        """Starts everything, waits for the end, drains. Returns the exit code."""
        self._listen_for_signals()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._tracing.close)
            redis = connect_redis(self._settings.redis)
            stack.push_async_callback(redis.aclose)
            runtime = self._runtime(redis)
            if self._worker is not None:
                stack.push_async_callback(self._worker.stop)
            server = await stack.enter_async_context(self._serving_grpc(runtime))
            async with _background_tasks() as start_task:
                start_task(self._readiness.publish_forever())
                start_task(self._watch_redis(redis))
                start_task(return_freed_memory_forever())
                start_task(self._announce_when_ready())
                if self._settings.pod is not None:
                    start_task(PodDeletionCost(self._settings.pod, lambda: self._slots.used_slots).follow())
                exit_code = await self._until_stopped(runtime.registry, start_task)
                await self._drain()
            # Only now, or a last heartbeat would bring the instance back.
            await self._leave(runtime.registry)
            await server.stop(CLOSING_SECONDS)
        logger.info("the service has stopped", extra={"exit_code": exit_code})
        return exit_code

    def _create_worker(self) -> Worker | None:
        engine = self._definition.engine
        if engine is None:
            return None
        worker = Worker(
            engine.factory,
            engine.settings,
            self._settings.worker,
            stage=self._definition.stage,
            instance_id=self._settings.instance_id,
            log_level=self._settings.log_level,
        )
        self._metrics.observe_worker(worker)
        return worker

    def _runtime(self, redis: RedisClient) -> ServiceRuntime:
        settings = self._settings
        timeout_seconds = settings.redis.timeout_seconds
        return ServiceRuntime(
            settings=settings,
            redis=redis,
            leases=LeaseStore(redis, lease_seconds=settings.lease_seconds, timeout_seconds=timeout_seconds),
            registry=Registry(redis, heartbeat_seconds=settings.heartbeat_seconds, timeout_seconds=timeout_seconds),
            slots=self._slots,
            metrics=self._metrics,
            tracing=self._tracing,
            worker=self._worker,
        )

    @asynccontextmanager
    async def _serving_grpc(self, runtime: ServiceRuntime) -> AsyncIterator[grpc.aio.Server]:
        """Server and metrics on their ports; the health is NOT_SERVING at first."""
        server = create_server()
        self._metrics.observe_event_loop(asyncio.get_running_loop())
        async with self._definition.bind(runtime, server):
            self._add_health(server)
            names = (self._definition.grpc_name, HEALTH_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server)
            await self._readiness.publish_now()
            address = self._bind_port(server)
            metrics_server = MetricsServer(self._settings.metrics_address, self._metrics.registry)
            try:
                async with (
                    _serving_alone("health", self._settings.health_address, self._add_health) as health,
                    _serving_alone("operations", self._settings.operations_address, self._add_operations) as operations,
                ):
                    await server.start()
                    self._addresses = {"address": address, "metrics": metrics_server.address, **health, **operations}
                    logger.info("listening", extra=self._addresses)
                    yield server
            finally:
                await server.stop(0)
                await asyncio.to_thread(metrics_server.stop)

    def _add_health(self, server: grpc.aio.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self._readiness.servicer, server)

    def _add_operations(self, server: grpc.aio.Server) -> None:
        operations = Operations(
            self._slots, lambda: self._begin_drain("Drain"), drain_seconds=self._settings.drain_seconds
        )
        add_OperationsServiceServicer_to_server(operations, server)
        reflection.enable_server_reflection((OPERATIONS_NAME, reflection.SERVICE_NAME), server)

    def _bind_port(self, server: grpc.aio.Server) -> str:
        host, _ = split_address(self._settings.listen_address)
        credentials = server_credentials(self._settings.tls)
        if credentials is None:
            port = server.add_insecure_port(self._settings.listen_address)
        else:
            port = server.add_secure_port(self._settings.listen_address, credentials)
        return join_address(host, port)

    def _listen_for_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: int) -> None:
        if self._signalled:
            os._exit(128 + number)  # the worker notices and ends too
        self._signalled = True
        self._begin_drain(signal.Signals(number).name)

    def _begin_drain(self, cause: str) -> None:
        if not self._stop.is_set():
            logger.info("draining", extra={"cause": cause})
            self._stop.set()

    async def _until_stopped(self, registry: Registry, start_task: StartTask) -> int:
        """Warms the worker and waits: 0 for a signal or `Drain`, 1 for a lost worker."""
        ends: list[asyncio.Task[Any]] = [asyncio.create_task(self._stop.wait())]
        if self._worker is not None:
            ends.append(asyncio.create_task(self._run_worker(self._worker, registry, start_task)))
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
            await asyncio.wait(ends)
        for end in ends:
            if not end.cancelled():
                end.result()
        return 0 if self._stop.is_set() else 1

    async def _run_worker(self, worker: Worker, registry: Registry, start_task: StartTask) -> None:
        """Returns when the worker is lost, or did not start."""
        try:
            description = await worker.start()
        except VisavisError as error:
            logger.error("the worker did not start", extra={"reason": error.reason})
            return
        if description.slots:
            self._slots.limit(description.slots)
        self._metrics.slots.set(self._slots.slots)
        self._metrics.describe_model(description)
        start_task(self._send_heartbeats(registry))
        await worker.lost.wait()

    async def _drain(self) -> None:
        """No new sessions; running ones end by themselves or, after `drain_seconds`, with UNAVAILABLE."""
        self._readiness.note_draining()
        self._metrics.draining.set(1)
        await self._readiness.publish_now()
        self._slots.drain(self._settings.drain_seconds)
        await self._wait_for_sessions()
        if self._slots.used_slots:
            logger.warning("sessions are cut off", extra={"sessions": self._slots.used_slots})
            self._slots.evict_all(Draining("this instance is shutting down; another one may serve you", 0.0))

    async def _leave(self, registry: Registry) -> None:
        if self._worker is not None and self._worker.description is not None:
            with contextlib.suppress(StateStoreUnavailable):
                await registry.remove(self._definition.stage, self._settings.instance_id)

    async def _wait_for_sessions(self) -> None:
        ends: list[asyncio.Task[Any]] = [asyncio.create_task(self._slots.wait_idle())]
        if self._worker is not None:
            ends.append(asyncio.create_task(self._worker.lost.wait()))
        await asyncio.wait(ends, timeout=self._settings.drain_seconds, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()

    async def _watch_redis(self, redis: RedisClient) -> None:
        reachable: bool | None = None
        while True:
            try:
                await redis_reply(redis.ping(), timeout_seconds=self._settings.redis.timeout_seconds)
                now_reachable = True
            except StateStoreUnavailable:
                now_reachable = False
            if now_reachable != reachable:
                reachable = now_reachable
                self._readiness.note_redis(reachable=reachable)
                self._metrics.redis_reachable.set(int(reachable))
                logger.log(
                    logging.INFO if reachable else logging.WARNING,
                    "Redis is reachable" if reachable else "Redis cannot be reached, trying on",
                )
            await asyncio.sleep(self._settings.heartbeat_seconds)

    async def _send_heartbeats(self, registry: Registry) -> None:
        """At once when the load changes, else every `heartbeat_seconds`."""
        changed = self._slots.changed
        while True:
            changed.clear()
            self._metrics.used_slots.set(self._slots.used_slots)
            with contextlib.suppress(StateStoreUnavailable):  # _watch_redis logs it
                await registry.heartbeat(self._heartbeat())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.heartbeat_seconds):
                    await changed.wait()

    def _heartbeat(self) -> StageInstance:
        assert self._worker is not None
        description = self._worker.description
        assert description is not None
        return StageInstance(
            stage=self._definition.stage,
            instance_id=self._settings.instance_id,
            address=advertised_address(self._settings.advertise_address, self._addresses["address"]),
            slots=self._slots.slots,
            used_slots=self._slots.used_slots,
            draining=self._slots.draining or self._worker.hung,
            model_name=description.model_name,
            model_fingerprint=description.model_fingerprint,
            random_weights=description.random_weights,
            width=description.width,
            height=description.height,
            frame_rate=description.frame_rate,
            compatibility=description.compatibility,
            sampling=description.sampling,
        )

    async def _announce_when_ready(self) -> None:
        await self._readiness.first_serving.wait()
        line = {"event": "ready", "stage": self._definition.stage, "instance_id": self._settings.instance_id}
        print(json.dumps({**line, **self._addresses}), flush=True)

    def _note_serving(self, serving: bool) -> None:
        self._metrics.serving.set(int(serving))
        logger.info("health changes", extra={"serving": serving})


@asynccontextmanager
async def _serving_alone(
    name: str, address: str, add_service: Callable[[grpc.aio.Server], None]
) -> AsyncIterator[dict[str, str]]:
    """One service on a port of its own, in plain text; gives its address by `name`, or nothing without `address`."""
    if not address:
        yield {}
        return
    server = create_server()
    add_service(server)
    host, _ = split_address(address)
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield {name: join_address(host, port)}
    finally:
        await server.stop(CLOSING_SECONDS)


@asynccontextmanager
async def _background_tasks() -> AsyncIterator[StartTask]:
    """Tasks that are cancelled at the end; one that fails ends the block with its error."""
    async with asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[None]] = []
        try:
            yield lambda work: tasks.append(group.create_task(work))
        finally:
            for task in tasks:
                task.cancel()


def advertised_address(configured: str, bound: str) -> str:
    """host:port for heartbeats: as configured, the port of the bound address added where it is missing.

    Unconfigured it is the bound address, with this machine's name in place of a wildcard.
    """
    host, port = split_address(bound)
    if not configured:
        return join_address(socket.gethostname() if host in WILDCARD_HOSTS else host, port)
    try:
        return join_address(*split_address(configured))
    except ValueError:
        return join_address(configured.removeprefix("[").removesuffix("]"), port)
