"""Opens, resumes, serves and closes sessions: from the first request to the freed slots."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from gateway.avatar_store import AvatarStore
from gateway.checkpoint import Checkpoint
from gateway.checkpoint_store import CheckpointStore
from gateway.checkpointer import Checkpointer
from gateway.eviction import Eviction
from gateway.history import SessionHistory
from gateway.metrics import GatewayMetrics
from gateway.pipeline import Pipeline
from gateway.request_order import RequestOrder
from gateway.response_writer import WriteResponse
from gateway.resume_rights import HeldRight, ResumeRights, nothing_to_resume
from gateway.resume_token import ResumeToken
from gateway.resumption import plan_resumption
from gateway.sampling import SamplingWish
from gateway.segments import duration
from gateway.session import SessionClient, TalkSession
from gateway.session_config import SessionPlan, plan_session
from gateway.session_limits import SessionLimits
from gateway.session_opening import SessionOpening
from gateway.session_placement import SessionPlacement
from gateway.session_watch import SessionWatch
from gateway.settings import GatewaySettings
from gateway.stage_dialect import Metadata
from gateway.stages import Stages
from visavis.contract import FRAME_RATE
from visavis.runtime.boundary import next_request
from visavis.runtime.errors import (
    CheckpointUnreadable,
    DeadlineMissed,
    InvalidInput,
    LeaseLost,
    LimitExceeded,
    RetryableError,
    SessionAborted,
    StateStoreUnavailable,
    VisavisError,
    as_visavis_error,
)
from visavis.runtime.finishing import run_to_end
from visavis.runtime.session_id import new_session_id
from visavis.runtime.slots import SlotPool
from visavis.runtime.tracing import TRACEPARENT, Tracing
from visavis.v1.talking_head_pb2 import (
    ResumeSession,
    SessionConfig,
    SessionResumed,
    SessionStarted,
    TalkRequest,
    TalkResponse,
)

_RETRY_SECONDS: Final = 0.2
# From the end of a client's stream to the last checkpoint it takes milliseconds; a dead gateway writes none.
_LEAVING_SECONDS: Final = 0.4
_LEAVING_LOOK_SECONDS: Final = 0.02

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sessions:
    """Everything that sessions share."""

    settings: GatewaySettings
    stages: Stages
    avatars: AvatarStore
    rights: ResumeRights
    checkpoints: CheckpointStore
    slots: SlotPool
    metrics: GatewayMetrics
    tracing: Tracing
    running: dict[str, Eviction] = field(default_factory=dict)
    """The sessions of this gateway by their ids."""

    async def serve(self, requests: AsyncIterator[TalkRequest], write: WriteResponse, traceparent: str) -> None:
        """The whole of one `Talk` stream; `traceparent` of the client's call, or "".

        Errors: `VisavisError`s (maybe in an `ExceptionGroup`); whatever happens, stages and slots are free afterwards.
        """
        order = RequestOrder()
        first = await self._read_first(requests, order)
        client = SessionClient(requests, order, write)
        if first.HasField("config"):
            await self._begin(first.config, client, traceparent)
        else:
            await self._resume(first.resume, client, traceparent)

    async def _read_first(self, requests: AsyncIterator[TalkRequest], order: RequestOrder) -> TalkRequest:
        limit_seconds = self.settings.service.config_timeout_seconds
        try:
            async with asyncio.timeout(limit_seconds):
                request = await next_request(requests)
        except TimeoutError:
            raise DeadlineMissed(f"config must come within {limit_seconds:g} s") from None
        if request is None:
            raise InvalidInput("the stream ended without config; config or resume comes first", "config")
        order.accept(request)
        return request

    async def _begin(self, config: SessionConfig, client: SessionClient, traceparent: str) -> None:
        plan = plan_session(config, self.settings.session)
        config.seed = plan.seed
        right = self.rights.begin(new_session_id())
        with self._admitted(right.token.session_id, traceparent) as (watch, eviction):
            avatar = await self.avatars.load(config.avatar_id)
            opening = SessionOpening.new(right, config, plan, avatar, self.settings.session.history_chunks)
            await self._serve(opening, client, watch, eviction)

    async def _resume(self, request: ResumeSession, client: SessionClient, traceparent: str) -> None:
        token = ResumeToken.parse(request.resume_token)
        with self._admitted(token.session_id, traceparent) as (watch, eviction):
            try:
                opening = await self._reclaim(token, request)
            except VisavisError:
                self.metrics.resumed("refused")
                raise
            await self._serve(opening, client, watch, eviction)

    async def _reclaim(self, token: ResumeToken, request: ResumeSession) -> SessionOpening:
        """Take a session from whoever has it.

        Errors: `NotFound`, `InvalidInput`, `StateStoreUnavailable`; `CheckpointUnreadable` where a newer gateway is
        needed, which can still take it.
        """
        if not await self.rights.knows(token):
            raise nothing_to_resume()
        await self._evict_running(token.session_id)
        await self._wait_for_last_checkpoint(token.session_id)
        checkpoint = await self.checkpoints.load(token.session_id)
        if checkpoint is None:
            raise nothing_to_resume()
        plan = self._plan_again(checkpoint)
        resumption = plan_resumption(request, checkpoint, plan.audio_format, live_when_idle=plan.rules.live_when_idle)
        avatar = await self.avatars.load(checkpoint.config.avatar_id)
        right = await self.rights.take(token, expire_seconds=self.settings.session.resume_window_seconds)
        return SessionOpening(
            right=right,
            config=checkpoint.config,
            plan=plan,
            avatar=avatar,
            started_unix_seconds=checkpoint.started_unix_seconds,
            start=resumption.start,
            history=SessionHistory(self.settings.session.history_chunks, resumption.chunks),
            resumption=resumption,
            replay_chunks=dict(checkpoint.replay_chunks),
            sampling=SamplingWish(checkpoint.config.sampling, pinned=checkpoint.sampling),
        )

    def _plan_again(self, checkpoint: Checkpoint) -> SessionPlan:
        """Errors: `CheckpointUnreadable`: the gateway that took this config knows more than this one."""
        try:
            return plan_session(checkpoint.config, self.settings.session)
        except InvalidInput as error:
            raise CheckpointUnreadable(
                "the session's config is not known to this gateway; another can resume it"
            ) from error

    async def _evict_running(self, session_id: str) -> None:
        """The client left its old stream behind, at this gateway: that writes its last checkpoint and ends."""
        older = self.running.get(session_id)
        if older is not None:
            older(LeaseLost("the session was resumed in another stream"))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.settings.stages.recovery_open_seconds):
                    await older.ended.wait()

    async def _wait_for_last_checkpoint(self, session_id: str) -> None:
        """A client is often back before its old gateway has written down where it left; that gateway may be dead."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LEAVING_SECONDS):
                while not await self.checkpoints.left(session_id):  # noqa: ASYNC110  # another process writes it
                    await asyncio.sleep(_LEAVING_LOOK_SECONDS)

    async def _serve(
        self, opening: SessionOpening, client: SessionClient, watch: SessionWatch, eviction: Eviction
    ) -> None:
        session = self._session(opening, client, watch, eviction)
        self.running[opening.session_id] = eviction
        pipeline = await self._open_pipeline(opening, session, watch)
        checkpointer = Checkpointer(
            self.checkpoints,
            opening.right,
            self.settings.session,
            self.metrics,
            lambda: self._checkpoint(opening, session, pipeline),
            lambda: pipeline.fencing_token,
        )
        try:
            await checkpointer.begin()
            await client.write(_opened(opening, pipeline, self.settings.session.resume_window_seconds))
            if opening.resumption is not None:
                self.metrics.resumed("resumed")
            watch.began = True
            async with asyncio.TaskGroup() as group:
                beside = [
                    group.create_task(checkpointer.run()),
                    group.create_task(_confirm(opening.right, session)),
                ]
                await session.run(pipeline, checkpointer)
                for task in beside:
                    task.cancel()
        except BaseException as error:
            pipeline.close()
            await self._leave_behind(checkpointer, error)
            raise
        pipeline.close()
        # The client may not get to see the end; then it comes back for it.
        await checkpointer.leave(seconds=self.settings.session.resume_window_seconds)

    async def _leave_behind(self, checkpointer: Checkpointer, error: BaseException) -> None:
        """A broken session can be resumed, unless the client broke it."""
        last = checkpointer.leave(seconds=0) if _broken_by_client(error) else checkpointer.finish()
        with contextlib.suppress(TimeoutError):
            await run_to_end(last, timeout_seconds=2 * self.settings.service.redis.timeout_seconds)

    def _session(
        self, opening: SessionOpening, client: SessionClient, watch: SessionWatch, eviction: Eviction
    ) -> TalkSession:
        settings, resumption = self.settings.session, opening.resumption
        age_seconds = max(0.0, time.time() - opening.started_unix_seconds)
        limits = SessionLimits(
            idle_seconds=settings.idle_limit_seconds,
            lifetime_seconds=max(0.0, settings.lifetime_seconds - age_seconds),
        )
        return TalkSession(
            opening,
            client,
            watch,
            limits,
            eviction,
            asyncio.get_running_loop().time,
            slow_reader_seconds=settings.slow_reader_seconds if opening.plan.drops else None,
            chunks_written=0 if resumption is None else resumption.chunks_written,
            frames_written=0 if resumption is None else resumption.frames_written,
        )

    async def _open_pipeline(self, opening: SessionOpening, session: TalkSession, watch: SessionWatch) -> Pipeline:
        """The stages of a session. What cannot be had is an answer at once, but much is at stake for a resumed one."""
        patience = self.settings.stages.recovery_seconds if opening.resumption is not None else 0.0
        gives_up_at = time.monotonic() + patience
        metadata = ((TRACEPARENT, watch.traceparent),) if watch.traceparent else None
        while True:
            try:
                return await self.stages.on_current_lists(
                    f"{opening.fingerprint} {opening.sampling.preset}",
                    lambda: self._opened_pipeline(opening, session, metadata),
                )
            except RetryableError:
                if time.monotonic() + _RETRY_SECONDS > gives_up_at:
                    raise
            await asyncio.sleep(_RETRY_SECONDS)

    async def _opened_pipeline(self, opening: SessionOpening, session: TalkSession, metadata: Metadata) -> Pipeline:
        open_seconds = self.settings.stages.open_timeout_seconds
        placement = await SessionPlacement.find(
            self.stages, opening.session_id, opening.fingerprint, opening.sampling, open_seconds, metadata
        )
        start, history, right = opening.pipeline_start(placement.sampling), opening.history, opening.right
        pipeline = Pipeline(start, placement, history, right, self.settings.stages, self.metrics, session.deliver)
        try:
            await pipeline.open()
        except BaseException as error:
            pipeline.close()
            if isinstance(error, Exception):
                raise as_visavis_error(error, session_id=opening.session_id) from error
            raise
        return pipeline

    def _checkpoint(self, opening: SessionOpening, session: TalkSession, pipeline: Pipeline) -> Checkpoint:
        epoch, epoch_border, epoch_position = session.epoch_start
        return Checkpoint(
            config=opening.config,
            epoch=epoch,
            epoch_border=epoch_border,
            epoch_position=epoch_position,
            last_written=session.last_written,
            chunks_written=session.chunks_written,
            frames_written=session.frames_at_border,
            started_unix_seconds=opening.started_unix_seconds,
            gateway_id=self.settings.service.instance_id,
            generator_id=pipeline.generator_id,
            sampling=pipeline.sampling,
            replay_chunks=pipeline.replay_chunks,
            chunks=tuple(opening.history.written(session.last_written)),
        )

    @contextmanager
    def _admitted(self, session_id: str, traceparent: str) -> Iterator[tuple[SessionWatch, Eviction]]:
        """Holds the session's slot, with the stream that it is resumed from where that is still here.

        Logs the stream's end, once, counts it by its status and ends its trace.
        """
        watch = SessionWatch(self.metrics, self.tracing, session_id, traceparent)
        eviction = Eviction()
        code, reason = "OK", ""
        try:
            with self.slots.claim(session_id, eviction):
                yield watch, eviction
        except Exception as error:
            told = as_visavis_error(error, session_id=session_id)
            code, reason = told.code.name, told.reason
            raise told from error
        except asyncio.CancelledError:
            code, reason = "CANCELLED", SessionAborted.reason
            raise
        finally:
            eviction.ended.set()
            if self.running.get(session_id) is eviction:
                del self.running[session_id]
            watch.close(code, reason)
            fields = {"session_id": session_id, "code": code, "reason": reason, "trace_id": watch.trace_id}
            logger.info("session ends", extra=fields)


def _broken_by_client(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_broken_by_client(each) for each in error.exceptions)
    return isinstance(error, InvalidInput | LimitExceeded)


async def _confirm(right: HeldRight, session: TalkSession) -> None:
    await session.heard_client.wait()
    with contextlib.suppress(StateStoreUnavailable):
        await right.confirm()


def _opened(opening: SessionOpening, pipeline: Pipeline, resume_window_seconds: float) -> TalkResponse:
    """The first response."""
    width, height = pipeline.picture_size
    started = SessionStarted(
        session_id=opening.session_id,
        seed=opening.plan.seed,
        width=width,
        height=height,
        frame_rate=FRAME_RATE,
        model=pipeline.model,
        resume_token=opening.right.token.text,
        resume_window=duration(resume_window_seconds),
    )
    resumption = opening.resumption
    if resumption is None:
        return TalkResponse(started=started)
    return TalkResponse(
        resumed=SessionResumed(
            started=started, epoch=resumption.start.epoch, next_frame_index=resumption.next_frame_index
        )
    )
