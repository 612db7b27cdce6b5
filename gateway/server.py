"""The gateway as a service of visavis.runtime: builds its parts on what the runtime gives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from gateway.api import TalkingHeadServicer
from gateway.avatar_store import AvatarStore
from gateway.channel_pool import ChannelPool
from gateway.checkpoint_store import CheckpointStore
from gateway.metrics import GatewayMetrics
from gateway.resume_rights import ResumeRights
from gateway.sessions import Sessions
from gateway.settings import GatewaySettings, read_gateway_settings
from gateway.stages import Stages
from visavis.runtime.server import run_main
from visavis.runtime.service import Bind, ServiceDefinition, ServiceRuntime
from visavis.runtime.settings import Environment, ServiceSettings
from visavis.v1.talking_head_pb2_grpc import add_TalkingHeadServiceServicer_to_server


def gateway_definition(settings: GatewaySettings) -> ServiceDefinition:
    """What `run_service` needs to run the gateway."""
    return ServiceDefinition(
        stage="gateway", grpc_name="visavis.v1.TalkingHeadService", bind=_bind_with(settings), engine=None
    )


def build(environment: Environment) -> tuple[ServiceDefinition, ServiceSettings]:
    """Reads the settings; raises SettingsError."""
    settings = read_gateway_settings(environment)
    return gateway_definition(settings), settings.service


def main() -> int:
    """Runs until SIGTERM; gives the exit code."""
    return run_main(build)


def _bind_with(settings: GatewaySettings) -> Bind:
    @asynccontextmanager
    async def bind(runtime: ServiceRuntime, server: grpc.aio.Server) -> AsyncIterator[None]:
        channels = ChannelPool(settings.service.tls)
        try:
            add_TalkingHeadServiceServicer_to_server(_servicer(settings, runtime, channels), server)
            yield
        finally:
            await channels.close()

    return bind


def _servicer(settings: GatewaySettings, runtime: ServiceRuntime, channels: ChannelPool) -> TalkingHeadServicer:
    timeout_seconds = settings.service.redis.timeout_seconds
    metrics = GatewayMetrics(runtime.metrics)
    stages = Stages(
        runtime.registry,
        channels,
        settings.stages,
        metrics,
        heartbeat_seconds=settings.service.heartbeat_seconds,
        gateway_id=settings.service.instance_id,
    )
    avatars = AvatarStore(runtime.redis, timeout_seconds=timeout_seconds)
    runtime.metrics.slots.set(runtime.slots.slots)
    runtime.metrics.used_slots.set_function(lambda: runtime.slots.used_slots)
    sessions = Sessions(
        settings,
        stages,
        avatars,
        ResumeRights(runtime.redis, runtime.leases),
        CheckpointStore(runtime.redis, runtime.leases),
        runtime.slots,
        metrics,
        runtime.tracing,
    )
    return TalkingHeadServicer(sessions, stages, avatars)
