"""The generator as a gRPC service: a session here needs the lease in Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from services.generator.config import check_config
from services.generator.settings import GeneratorSettings
from visavis.runtime.lease_keeper import LeaseKeeper
from visavis.runtime.service import EngineSpec, ServiceDefinition, ServiceRuntime, bind_servicer
from visavis.runtime.stage import CompleteReady, StageSession, StreamRules
from visavis.v1 import generator_pb2, generator_pb2_grpc

STAGE: Final = "generator"

RULES: Final = StreamRules(
    item_field="speech",
    response_type=generator_pb2.GenerateResponse,
    output_field="chunk",
    check_config=check_config,
    # Latents are judged by the model, in the worker.
    check_item=lambda speech: None,
)


class GeneratorServicer(generator_pb2_grpc.GeneratorServiceServicer):
    """Hands streams to the worker, each under its session's lease."""

    def __init__(self, runtime: ServiceRuntime) -> None:
        self._stage = runtime.stage()
        self._leases = runtime.leases
        self._generator_id = runtime.settings.instance_id

    async def Generate(self, request_iterator: AsyncIterator[generator_pb2.GenerateRequest], context: Any) -> None:
        """One session: config -> ready, then the video latents of each chunk."""
        await self._stage.serve_session(request_iterator, context, RULES, self._under_lease)

    @asynccontextmanager
    async def _under_lease(self, session: StageSession) -> AsyncIterator[CompleteReady]:
        """Holds the lease while the session runs; when it is lost, the session ends with LeaseLost."""
        async with LeaseKeeper(self._leases, session.session_id, self._generator_id, session.fail) as keeper:

            def complete(ready: generator_pb2.GenerateReady) -> None:
                ready.generator_id = self._generator_id
                ready.fencing_token = keeper.lease.token

            yield complete


def define_service(settings: GeneratorSettings) -> ServiceDefinition:
    """What `run_service` needs to know about the generator."""
    return ServiceDefinition(
        stage=STAGE,
        grpc_name="visavis.v1.GeneratorService",
        bind=bind_servicer(generator_pb2_grpc.add_GeneratorServiceServicer_to_server, GeneratorServicer),
        engine=EngineSpec("services.generator.engine:GeneratorEngine", settings),
    )
