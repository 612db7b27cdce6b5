"""A gateway on a real port with real Redis, in front of stage servers of the test's choice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import grpc

from gateway.server import gateway_definition
from gateway.settings import GatewaySettings, read_gateway_settings
from tests.gateway.stage_servers import AudioEncoderServer, DecoderServer, GeneratorServer, StageServer
from visavis.runtime.channels import channel_options, create_server
from visavis.runtime.leases import LeaseStore
from visavis.runtime.redis_connection import RedisClient, connect_redis
from visavis.runtime.registry import Registry
from visavis.runtime.service import ServiceRuntime
from visavis.runtime.settings import Environment
from visavis.runtime.slots import SlotPool
from visavis.runtime.telemetry import Metrics
from visavis.runtime.tracing import NO_TRACING
from visavis.v1 import talking_head_pb2
from visavis.v1.talking_head_pb2 import ConsentRecord, RegisterAvatarRequest
from visavis.v1.talking_head_pb2_grpc import TalkingHeadServiceStub

PORTRAIT = b"\xff\xd8 a portrait"
CONSENT = ConsentRecord(basis=talking_head_pb2.CONSENT_BASIS_SYNTHETIC_PERSON, granted_by="tests", statement="nobody")


@dataclass
class GatewayUnderTest:
    """A running gateway and everything around it."""

    stub: TalkingHeadServiceStub
    settings: GatewaySettings
    runtime: ServiceRuntime
    stages: Sequence[StageServer]
    address: str

    @property
    def redis(self) -> RedisClient:
        return self.runtime.redis

    @property
    def registry(self) -> Registry:
        return self.runtime.registry

    def metric(self, name: str, **labels: str) -> float:
        return self.runtime.metrics.registry.get_sample_value(name, labels) or 0.0

    async def register_avatar(self) -> str:
        request = RegisterAvatarRequest(portrait=PORTRAIT, display_name="A", consent=CONSENT)
        response = await self.stub.RegisterAvatar(request)
        return response.avatar.avatar_id


def one_of_each() -> list[StageServer]:
    """A healthy instance of every stage."""
    return [AudioEncoderServer(), GeneratorServer(), DecoderServer()]


@asynccontextmanager
async def running_gateway(
    redis_url: str, stages: Sequence[StageServer] | None = None, **variables: str
) -> AsyncIterator[GatewayUnderTest]:
    """The gateway in front of `stages` (one healthy instance of each by default), VISAVIS_* settings by name.

    It looks at heartbeats often, so that tests need not wait for what they change there, and has no name of its own,
    so that of equal instances it prefers the one with the smallest id. It is patient with Redis and with opening a
    stage, so that a machine that stands still for a moment fails no test: what is down refuses at once.
    """
    patience = {"REDIS_TIMEOUT_SECONDS": "30", "RECOVERY_OPEN_SECONDS": "30"}
    values = {"REDIS_URL": redis_url, "HEARTBEAT_SECONDS": "0.05", **patience, **variables}
    settings = read_gateway_settings(Environment({f"VISAVIS_{name}": value for name, value in values.items()}))
    settings = replace(settings, service=replace(settings.service, instance_id=""))
    servers = one_of_each() if stages is None else list(stages)
    runtime = _runtime(settings)
    try:
        for server in servers:
            await add_stage(server, runtime)
        async with (
            _serving(settings, runtime) as address,
            grpc.aio.insecure_channel(address, options=channel_options()) as channel,
        ):
            yield GatewayUnderTest(TalkingHeadServiceStub(channel), settings, runtime, servers, address)
    finally:
        for server in servers:
            await server.stop()
        await runtime.redis.aclose()


async def add_stage(server: StageServer, runtime: ServiceRuntime) -> None:
    """Starts a stage server, unless it runs, and tells the registry of it."""
    if isinstance(server, GeneratorServer):
        server.leases = runtime.leases
    if server.server is None:
        await server.start()
    await server.register(runtime.registry)


def _runtime(settings: GatewaySettings) -> ServiceRuntime:
    redis = connect_redis(settings.service.redis)
    timeout_seconds = settings.service.redis.timeout_seconds
    return ServiceRuntime(
        settings=settings.service,
        redis=redis,
        leases=LeaseStore(redis, lease_seconds=15, timeout_seconds=timeout_seconds),
        registry=Registry(redis, heartbeat_seconds=60, timeout_seconds=timeout_seconds),
        slots=SlotPool(settings.service.slots, retry_after_seconds=2),
        metrics=Metrics("gateway"),
        tracing=NO_TRACING,
        worker=None,
    )


@asynccontextmanager
async def _serving(settings: GatewaySettings, runtime: ServiceRuntime) -> AsyncIterator[str]:
    server = create_server()
    async with gateway_definition(settings).bind(runtime, server):
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(0)
