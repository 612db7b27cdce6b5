"""The generator as a gRPC service: a session here needs the lease in Redis, and can move to another generator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from services.generator.config import check_config
from services.generator.peer import state_of_peer
from services.generator.settings import GeneratorSettings
from services.generator.transfer_ids import leaving_id
from visavis.runtime.boundary import answer, write
from visavis.runtime.errors import DeadlineMissed, LeaseLost, NotFound, SessionMoved
from visavis.runtime.lease_keeper import LeaseKeeper
from visavis.runtime.service import EngineSpec, ServiceDefinition, ServiceRuntime, bind_servicer
from visavis.runtime.stage import CompleteReady, StageSession
from visavis.runtime.stream_rules import StreamRules
from visavis.runtime.worker import WorkerSession
from visavis.v1 import generator_pb2, generator_pb2_grpc

STAGE: Final = "generator"

RULES: Final = StreamRules(
    item_field="speech",
    response_type=generator_pb2.GenerateResponse,
    output_field="chunk",
    check_config=check_config,
    # Latents are judged by the model, in the worker.
    check_item=lambda speech: None,
    # The engine knows where a session goes on that came from a peer.
    border=lambda config, ready: ready.border,
)


@dataclass(frozen=True, slots=True)
class _Held:
    """A session that this generator has the lease of."""

    keeper: LeaseKeeper
    session: StageSession


class GeneratorServicer(generator_pb2_grpc.GeneratorServiceServicer):
    """Hands streams to the worker, each under its session's lease, and states to other generators."""

    def __init__(self, runtime: ServiceRuntime, *, transfer_seconds: float) -> None:
        assert runtime.worker is not None
        self._stage = runtime.stage()
        self._worker = runtime.worker
        self._leases = runtime.leases
        self._tls = runtime.settings.tls
        self._generator_id = runtime.settings.instance_id
        self._transfer_seconds = transfer_seconds
        self._held: dict[str, _Held] = {}

    async def Generate(self, request_iterator: AsyncIterator[generator_pb2.GenerateRequest], context: Any) -> None:
        """One session: config -> ready, then the video latents of each chunk."""
        await self._stage.serve_session(request_iterator, context, RULES, self._under_lease)

    async def TransferSession(self, request: generator_pb2.TransferSessionRequest, context: Any) -> None:
        """The exact state of a session; afterwards it has left."""
        await answer(context, self._transfer(request, context), session_id=request.session_id)

    @asynccontextmanager
    async def _under_lease(self, session: StageSession) -> AsyncIterator[CompleteReady]:
        """Holds the lease while the session runs; when it is lost, the session ends with LeaseLost.

        A state is fetched before the lease is claimed: if it does not come, the peer goes on under its own.
        """
        config: Any = session.config
        take_over_token = config.take_over_token
        async with AsyncExitStack() as stack:
            if config.resume.HasField("peer"):
                peer = config.resume.peer
                take_over_token = max(take_over_token, peer.fencing_token)
                await stack.enter_async_context(
                    state_of_peer(
                        self._worker, session.session_id, peer, self._tls, timeout_seconds=self._transfer_seconds
                    )
                )
            keeper = LeaseKeeper(
                self._leases,
                session.session_id,
                self._generator_id,
                session.abandon,
                take_over_token=take_over_token,
            )
            await stack.enter_async_context(keeper)
            held = self._held[session.session_id] = _Held(keeper, session)

            def complete(ready: generator_pb2.GenerateReady) -> None:
                ready.generator_id = self._generator_id
                ready.fencing_token = keeper.lease.token

            try:
                yield complete
            finally:
                if self._held.get(session.session_id) is held:
                    del self._held[session.session_id]

    async def _transfer(self, request: generator_pb2.TransferSessionRequest, context: Any) -> None:
        held = self._held.get(request.session_id)
        if held is None:
            raise NotFound(f"session {request.session_id} is not here")
        if held.keeper.lease.token != request.fencing_token:
            raise LeaseLost(f"the lease of session {request.session_id} has another token")
        _, leaving = await self._worker.open(leaving_id(request.session_id), request)
        try:
            async with asyncio.timeout(self._transfer_seconds):
                await _send_state(leaving, context)
            held.session.fail(SessionMoved("the session has moved to another generator"))
        except TimeoutError:
            raise DeadlineMissed(f"the state was not taken within {self._transfer_seconds:g} s") from None
        finally:
            leaving.close()


async def _send_state(leaving: WorkerSession, context: Any) -> None:
    to_come = 1
    async for response in leaving:
        assert isinstance(response, generator_pb2.TransferSessionResponse)
        to_come += response.state.parts - 1
        await write(context, response)
        if not to_come:
            return


def define_service(settings: GeneratorSettings) -> ServiceDefinition:
    """What `run_service` needs to know about the generator."""
    create = partial(GeneratorServicer, transfer_seconds=settings.transfer_seconds)
    return ServiceDefinition(
        stage=STAGE,
        grpc_name="visavis.v1.GeneratorService",
        bind=bind_servicer(generator_pb2_grpc.add_GeneratorServiceServicer_to_server, create),
        engine=EngineSpec("services.generator.engine:GeneratorEngine", settings),
    )
