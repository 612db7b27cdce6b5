"""The stages as the registry knows them: which instances live, and one that takes what it is asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final, TypeVar

import grpc

from gateway.channel_pool import ChannelPool
from gateway.known_instances import InstanceLister, KnownInstances
from gateway.metrics import GatewayMetrics
from gateway.mismatches import Mismatches
from gateway.open_stage import OpenStage
from gateway.placement import DECODER, STAGES, placement_order, stage_missing
from gateway.settings import StageSettings
from gateway.stage_dialect import Metadata, RequestT, ResponseT, StageDialect
from gateway.stage_stream import StageStream
from visavis.runtime.errors import (
    CapacityExhausted,
    DeadlineMissed,
    InvalidInput,
    LimitExceeded,
    ModelMismatch,
    RetryableError,
    SessionExists,
    StagesUnsettled,
    StageUnavailable,
    StateStoreUnavailable,
    VisavisError,
    error_from_rpc,
)
from visavis.runtime.registry import HEARTBEATS_PER_EXPIRY, StageInstance
from visavis.v1.decoder_pb2 import EncodePortraitRequest, EncodePortraitResponse
from visavis.v1.decoder_pb2_grpc import DecoderServiceStub

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

# Stages that had taken a session which others refused need a moment to hear that it is gone.
_LETTING_GO_SECONDS: Final = 0.1

# What another instance of the stage may do better.
_TRY_ANOTHER: Final = (RetryableError, DeadlineMissed, LimitExceeded, SessionExists)


class Stages:
    """The stages as the registry knows them; nothing is configured by hand."""

    def __init__(
        self,
        registry: InstanceLister,
        channels: ChannelPool,
        settings: StageSettings,
        metrics: GatewayMetrics,
        *,
        heartbeat_seconds: float,
        gateway_id: str,
    ) -> None:
        self.gateway_id = gateway_id
        self._known = KnownInstances(registry, heartbeat_seconds)
        self._mismatches = Mismatches(HEARTBEATS_PER_EXPIRY * heartbeat_seconds)
        self._heartbeat_seconds = heartbeat_seconds
        self._channels = channels
        self._settings = settings
        self._metrics = metrics

    async def instances(self) -> dict[str, list[StageInstance]]:
        """The living instances of every stage, as they were at most a heartbeat ago. Errors: `StateStoreUnavailable`.

        What is placed on them belongs into `on_current_lists`.
        """
        lists = await asyncio.gather(*(self._known.of(stage) for stage in STAGES))
        await self._channels.prune({instance.address for found in lists for instance in found})
        return dict(zip(STAGES, lists, strict=True))

    async def stage_instances(self, stage: str) -> list[StageInstance]:
        """The living instances of one stage now. Errors: `StateStoreUnavailable`."""
        return await self._known.of(stage, now=True)

    async def on_current_lists(self, model: str, attempt: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """What `attempt` makes of the instances; made once more where it failed on lists that have changed since.

        model: what it needs, in any words that are the same each time. Errors: of `attempt`, but `StagesUnsettled` for
        a `ModelMismatch` that may pass.
        """
        try:
            result = await self._again_if_changed(attempt)
        except ModelMismatch as error:
            if self._mismatches.stands(model):
                raise
            told = f"while stages start or are replaced, try again; if that does not help: {error.message}"
            raise StagesUnsettled(told, retry_after_seconds=self._heartbeat_seconds) from error
        self._mismatches.none(model)
        return result

    async def _again_if_changed(self, attempt: Callable[[], Awaitable[ResultT]]) -> ResultT:
        try:
            return await attempt()
        except (RetryableError, ModelMismatch) as error:
            if isinstance(error, StateStoreUnavailable) or not await self._known.news():
                raise
        await asyncio.sleep(_LETTING_GO_SECONDS)
        return await attempt()

    async def encode_portrait(self, portrait: bytes, fingerprint: str) -> EncodePortraitResponse:
        """The portrait's latent and thumbnail, from a decoder of the model `fingerprint`.

        Errors: `InvalidInput` for what is no usable picture; `StageUnavailable`; `CapacityExhausted`.
        """
        decoders = placement_order((await self.instances())[DECODER], gateway_id=self.gateway_id)
        usable = [decoder for decoder in decoders if decoder.model_fingerprint == fingerprint]

        async def encode(decoder: StageInstance) -> EncodePortraitResponse:
            with self._channels.borrow(decoder.address) as channel:
                request = EncodePortraitRequest(portrait=portrait)
                try:
                    return await DecoderServiceStub(channel).EncodePortrait(
                        request, timeout=self._settings.portrait_timeout_seconds
                    )
                except grpc.aio.AioRpcError as error:
                    raise error_from_rpc(error) from error

        return await self.first_that_works(DECODER, usable, encode)

    async def open(
        self,
        dialect: StageDialect[RequestT, ResponseT],
        candidates: Sequence[StageInstance],
        request: RequestT,
        metadata: Metadata,
        timeout_seconds: float,
    ) -> OpenStage[RequestT, ResponseT]:
        """A session's stream to the first of `candidates` that takes it. Errors: as `first_that_works`."""

        async def attempt(instance: StageInstance) -> OpenStage[RequestT, ResponseT]:
            with ExitStack() as held:
                channel = held.enter_context(self._channels.borrow(instance.address))
                call = dialect.call(channel, metadata)
                stream = StageStream(dialect.stage, call, self._settings.stall_seconds, self._metrics)
                held.callback(stream.cancel)  # a late answer must not hold a slot
                answer: Any = await stream.open(request, timeout_seconds)
                if answer.WhichOneof("response") != "ready":
                    raise StageUnavailable("the first answer is not ready")
                self._known.placed(instance)
                return OpenStage(stream, instance, answer.ready, held.pop_all())

        return await self.first_that_works(dialect.stage, candidates, attempt)

    async def first_that_works(
        self, stage: str, candidates: Sequence[StageInstance], attempt: Callable[[StageInstance], Awaitable[ResultT]]
    ) -> ResultT:
        """Tries instance after instance; another one is tried only where this one was full or could not be reached.

        Errors: `CapacityExhausted`; `StageUnavailable` names the stage; `InvalidInput` and `ModelMismatch` of a stage.
        """
        full: CapacityExhausted | None = None
        for instance in candidates[: self._settings.max_tries]:
            try:
                return await attempt(instance)
            except CapacityExhausted as error:
                full = error
            except VisavisError as error:
                if not isinstance(error, _TRY_ANOTHER):
                    raise _told(stage, error) from error
                logger.warning(
                    "instance refused",
                    extra={"refusing_stage": stage, "refusing_instance": instance.instance_id, "cause": error.message},
                )
        if full is not None:
            raise CapacityExhausted(f"every {stage} is busy; try again later", full.retry_after_seconds)
        raise stage_missing(stage)


def _told(stage: str, error: VisavisError) -> VisavisError:
    """What the client may know of an error of a stage that another instance would repeat."""
    if isinstance(error, InvalidInput):
        return error
    if isinstance(error, ModelMismatch):
        return ModelMismatch(f"the stage {stage} runs another model than the avatar was registered with")
    logger.error("stage refused", extra={"refusing_stage": stage, "cause": error.message, "reason": error.reason})
    return stage_missing(stage)
