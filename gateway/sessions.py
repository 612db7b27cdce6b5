"""Opens, serves and closes sessions: from the first request to the freed slots."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

from gateway.avatar_store import AvatarStore
from gateway.metrics import GatewayMetrics
from gateway.request_order import RequestOrder
from gateway.session import TalkSession, WriteResponse
from gateway.session_config import SessionPlan, plan_session
from gateway.session_records import SessionRecord, SessionRecords
from gateway.session_watch import SessionWatch
from gateway.settings import GatewaySettings
from gateway.stages import SessionStages, Stages
from visavis.contract import FRAME_RATE
from visavis.runtime.errors import DeadlineMissed, InvalidInput, SessionAborted, StateStoreUnavailable, as_visavis_error
from visavis.runtime.finishing import run_to_end
from visavis.runtime.session_id import new_session_id
from visavis.runtime.slots import SlotPool
from visavis.runtime.tracing import Tracing
from visavis.v1.decoder_pb2 import DecodeConfig
from visavis.v1.generator_pb2 import GenerateConfig
from visavis.v1.talking_head_pb2 import SessionConfig, SessionStarted, TalkRequest, TalkResponse

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sessions:
    """Everything that sessions share."""

    settings: GatewaySettings
    stages: Stages
    avatars: AvatarStore
    records: SessionRecords
    slots: SlotPool
    metrics: GatewayMetrics
    tracing: Tracing

    async def serve(self, requests: AsyncIterator[TalkRequest], write: WriteResponse, traceparent: str) -> None:
        """The whole of one `Talk` stream; `traceparent` of the client's call, or "".

        Errors: `VisavisError`s (maybe in an `ExceptionGroup`); whatever happens, stages and slots are free afterwards.
        """
        order = RequestOrder()
        config = await self._read_config(requests, order)
        plan = plan_session(config, self.settings.session)
        session_id = new_session_id()
        watch = SessionWatch(self.metrics, self.tracing, session_id, traceparent)
        session = TalkSession(
            plan.audio_format,
            plan.rules,
            requests,
            order,
            write,
            watch,
            idle_limit_seconds=self.settings.session.idle_limit_seconds,
            clock=asyncio.get_running_loop().time,
        )
        with self._reported(session_id, watch), self.slots.claim(session.evict):
            await self._serve(session_id, config, plan, session, write, watch)

    async def _read_config(self, requests: AsyncIterator[TalkRequest], order: RequestOrder) -> SessionConfig:
        limit_seconds = self.settings.service.config_timeout_seconds
        try:
            async with asyncio.timeout(limit_seconds):
                request = await anext(requests, None)
        except TimeoutError:
            raise DeadlineMissed(f"config must come within {limit_seconds:g} s") from None
        if request is None:
            raise InvalidInput("the stream ended without config; config comes first", "config")
        order.accept(request)
        return request.config

    async def _serve(
        self,
        session_id: str,
        config: SessionConfig,
        plan: SessionPlan,
        session: TalkSession,
        write: WriteResponse,
        watch: SessionWatch,
    ) -> None:
        stored = await self.avatars.load(config.avatar_id)
        generate = GenerateConfig(
            session_id=session_id,
            avatar_id=config.avatar_id,
            portrait_latent=stored.portrait_latent,
            seed=plan.seed,
            sampling=config.sampling,
        )
        decode = DecodeConfig(
            session_id=session_id,
            portrait_latent=stored.portrait_latent,
            video_format=config.video_format,
            seed=plan.seed,
        )
        fingerprint = stored.avatar.model.fingerprint
        async with self.stages.open_session(generate, decode, fingerprint, watch.traceparent) as stages:
            record = SessionRecord(
                session_id=session_id,
                avatar_id=config.avatar_id,
                gateway_id=self.settings.service.instance_id,
                generator_id=stages.generator_id,
                seed=plan.seed,
                chunk_index=0,
            )
            async with self._recorded(record, lambda: session.last_chunk_index):
                await write(TalkResponse(started=_started(session_id, plan.seed, stages)))
                watch.began = True
                await session.run(stages)

    @asynccontextmanager
    async def _recorded(self, record: SessionRecord, chunk_index: Callable[[], int]) -> AsyncIterator[None]:
        """Keeps the record in Redis; an outage after the start disturbs nothing."""
        await self.records.save(record)
        refreshing = asyncio.create_task(self._refresh(record, chunk_index))
        try:
            yield
        finally:
            refreshing.cancel()
            with contextlib.suppress(StateStoreUnavailable, TimeoutError):  # it expires by itself
                await run_to_end(self.records.delete(record.session_id), timeout_seconds=1.0)

    async def _refresh(self, record: SessionRecord, chunk_index: Callable[[], int]) -> None:
        while True:
            await asyncio.sleep(self.records.refresh_seconds)
            with contextlib.suppress(StateStoreUnavailable):
                await self.records.save(replace(record, chunk_index=chunk_index()))

    @contextmanager
    def _reported(self, session_id: str, watch: SessionWatch) -> Iterator[None]:
        """Logs a session's end, once, counts it by its status and ends its trace."""
        code, reason = "OK", ""
        try:
            yield
        except Exception as error:
            told = as_visavis_error(error, session_id=session_id)
            code, reason = told.code.name, told.reason
            raise told from error
        except asyncio.CancelledError:
            code, reason = "CANCELLED", SessionAborted.reason
            raise
        finally:
            watch.close(code, reason)
            fields = {"session_id": session_id, "code": code, "reason": reason, "trace_id": watch.trace_id}
            logger.info("session ends", extra=fields)


def _started(session_id: str, seed: int, stages: SessionStages) -> SessionStarted:
    return SessionStarted(
        session_id=session_id,
        seed=seed,
        width=stages.width,
        height=stages.height,
        frame_rate=FRAME_RATE,
        model=stages.model,
    )
