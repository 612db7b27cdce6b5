"""The stages as the registry knows them: which instances live, and one that takes what it is asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final, TypeVar

import grpc

from gateway.channel_pool import ChannelPool
from gateway.metrics import GatewayMetrics
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
    StageUnavailable,
    VisavisError,
    error_from_rpc,
)
from visavis.runtime.registry import Registry, StageInstance
from visavis.v1.decoder_pb2 import EncodePortraitRequest, EncodePortraitResponse
from visavis.v1.decoder_pb2_grpc import DecoderServiceStub

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

# What another instance of the stage may do better.
_TRY_ANOTHER: Final = (RetryableError, DeadlineMissed, LimitExceeded, SessionExists)


class Stages:
    """The stages as the registry knows them; nothing is configured by hand."""

    def __init__(
        self, registry: Registry, channels: ChannelPool, settings: StageSettings, metrics: GatewayMetrics
    ) -> None:
        self._registry = registry
        self._channels = channels
        self._settings = settings
        self._metrics = metrics

    async def instances(self) -> dict[str, list[StageInstance]]:
        """The living instances of every stage. Errors: `StateStoreUnavailable`."""
        lists = await asyncio.gather(*(self._registry.list_instances(stage) for stage in STAGES))
        await self._channels.prune({instance.address for found in lists for instance in found})
        return dict(zip(STAGES, lists, strict=True))

    async def stage_instances(self, stage: str) -> list[StageInstance]:
        """The living instances of one stage. Errors: `StateStoreUnavailable`."""
        return await self._registry.list_instances(stage)

    async def encode_portrait(self, portrait: bytes, fingerprint: str) -> EncodePortraitResponse:
        """The portrait's latent and thumbnail, from a decoder of the model `fingerprint`.

        Errors: `InvalidInput` for what is no usable picture; `StageUnavailable`; `CapacityExhausted`.
        """
        decoders = placement_order((await self.instances())[DECODER])
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
