"""Finds instances of the stages and opens a session's three streams."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import grpc

from gateway.channel_pool import ChannelPool
from gateway.metrics import GatewayMetrics, Hop
from gateway.placement import AUDIO_ENCODER, DECODER, GENERATOR, STAGES, place_session, placement_order, stage_missing
from gateway.settings import StageSettings
from gateway.stage_stream import RequestT, ResponseT, StageStream
from visavis.runtime.errors import (
    CapacityExhausted,
    DeadlineMissed,
    InvalidInput,
    LimitExceeded,
    ModelMismatch,
    RetryableError,
    VisavisError,
    error_from_rpc,
)
from visavis.runtime.registry import Registry, StageInstance
from visavis.runtime.tracing import TRACEPARENT
from visavis.v1.audio_encoder_pb2 import EncodeConfig, EncodeReady, EncodeRequest, EncodeResponse
from visavis.v1.audio_encoder_pb2_grpc import AudioEncoderServiceStub
from visavis.v1.chunk_pb2 import ModelIdentity
from visavis.v1.decoder_pb2 import (
    DecodeConfig,
    DecodeReady,
    DecodeRequest,
    DecodeResponse,
    EncodePortraitRequest,
    EncodePortraitResponse,
)
from visavis.v1.decoder_pb2_grpc import DecoderServiceStub
from visavis.v1.generator_pb2 import GenerateConfig, GenerateReady, GenerateRequest, GenerateResponse
from visavis.v1.generator_pb2_grpc import GeneratorServiceStub

logger = logging.getLogger(__name__)

EncoderStream: TypeAlias = StageStream[EncodeRequest, EncodeResponse]
GeneratorStream: TypeAlias = StageStream[GenerateRequest, GenerateResponse]
DecoderStream: TypeAlias = StageStream[DecodeRequest, DecodeResponse]
ResultT = TypeVar("ResultT")

# What another instance of the stage may do better.
_TRY_ANOTHER = (RetryableError, DeadlineMissed, LimitExceeded)


@dataclass(frozen=True, slots=True)
class SessionStages:
    """The open streams of one session, one to each stage, all of one model."""

    audio_encoder: EncoderStream
    generator: GeneratorStream
    decoder: DecoderStream
    generator_id: str
    model: ModelIdentity
    width: int
    height: int

    async def finish(self) -> None:
        """Nothing follows; each stage frees its slot and ends its stream."""
        await asyncio.gather(self.audio_encoder.finish(), self.generator.finish(), self.decoder.finish())


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

    @asynccontextmanager
    async def open_session(
        self, generate: GenerateConfig, decode: DecodeConfig, fingerprint: str, traceparent: str
    ) -> AsyncIterator[SessionStages]:
        """The session's three streams, opened at once and ended for sure when the block is left.

        traceparent: of the session's span, for those of the stages; "" where nothing is traced.

        Errors: `StageUnavailable` names the stage that is down; `CapacityExhausted`; `ModelMismatch`;
        `StateStoreUnavailable`.
        """
        candidates = place_session(await self.instances(), fingerprint)
        async with AsyncExitStack() as streams:
            yield await self._open_all(streams, candidates, generate, decode, traceparent)

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

        return await self._first_that_works(DECODER, usable, encode)

    async def _open_all(
        self,
        streams: AsyncExitStack,
        candidates: Mapping[str, Sequence[StageInstance]],
        generate: GenerateConfig,
        decode: DecodeConfig,
        traceparent: str,
    ) -> SessionStages:
        fingerprints = {found.model_fingerprint for found in candidates[GENERATOR]}
        session_id = generate.session_id
        metadata = ((TRACEPARENT, traceparent),) if traceparent else None

        async def open_encoder(instance: StageInstance) -> tuple[EncoderStream, EncodeReady]:
            call = AudioEncoderServiceStub(self._channel(streams, instance)).Encode(metadata=metadata)
            stream = self._stream(streams, AUDIO_ENCODER, session_id, call)
            answer = await self._opened(stream, EncodeRequest(config=EncodeConfig(session_id=session_id)))
            return stream, answer.ready

        async def open_generator(instance: StageInstance) -> tuple[GeneratorStream, GenerateReady]:
            call = GeneratorServiceStub(self._channel(streams, instance)).Generate(metadata=metadata)
            stream = self._stream(streams, GENERATOR, session_id, call)
            return stream, (await self._opened(stream, GenerateRequest(config=generate))).ready

        async def open_decoder(instance: StageInstance) -> tuple[DecoderStream, DecodeReady]:
            call = DecoderServiceStub(self._channel(streams, instance)).Decode(metadata=metadata)
            stream = self._stream(streams, DECODER, session_id, call)
            return stream, (await self._opened(stream, DecodeRequest(config=decode))).ready

        async with asyncio.TaskGroup() as group:
            encoding = group.create_task(self._first_that_works(AUDIO_ENCODER, candidates[AUDIO_ENCODER], open_encoder))
            generating = group.create_task(self._first_that_works(GENERATOR, candidates[GENERATOR], open_generator))
            decoding = group.create_task(self._first_that_works(DECODER, candidates[DECODER], open_decoder))
        encoder, encoder_ready = encoding.result()
        generator, generator_ready = generating.result()
        decoder, decoder_ready = decoding.result()
        fingerprints |= {ready.model.fingerprint for ready in (encoder_ready, generator_ready, decoder_ready)}
        if len(fingerprints) > 1:
            raise ModelMismatch("the stages run different models; start them with the same model")
        return SessionStages(
            encoder,
            generator,
            decoder,
            generator_ready.generator_id,
            generator_ready.model,
            decoder_ready.width,
            decoder_ready.height,
        )

    def _channel(self, streams: AsyncExitStack, instance: StageInstance) -> grpc.aio.Channel:
        return streams.enter_context(self._channels.borrow(instance.address))

    def _stream(
        self,
        streams: AsyncExitStack,
        stage: Hop,
        session_id: str,
        call: grpc.aio.StreamStreamCall[RequestT, ResponseT],
    ) -> StageStream[RequestT, ResponseT]:
        stream = StageStream(stage, session_id, call, self._settings.answer_timeout_seconds, self._metrics)
        streams.callback(stream.cancel)
        return stream

    async def _opened(self, stream: StageStream[RequestT, ResponseT], config: RequestT) -> ResponseT:
        try:
            answer = await stream.open(config, self._settings.open_timeout_seconds)
        except VisavisError:
            stream.cancel()  # a late answer must not hold a slot
            raise
        if answer.WhichOneof("response") != "ready":
            raise stream.protocol_broken("the first answer is not ready")
        return answer

    async def _first_that_works(
        self, stage: str, candidates: Sequence[StageInstance], attempt: Callable[[StageInstance], Awaitable[ResultT]]
    ) -> ResultT:
        """Tries instance after instance; another one is tried only where this one was full or could not be reached."""
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
