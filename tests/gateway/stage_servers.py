"""Stage servers that keep to the contract without a model, and break it on request.

Latents and pictures are hashes of what came in, so that tests can tell whether the right bytes went the right way.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import grpc
import numpy as np

from visavis.runtime.boundary import answer
from visavis.runtime.channels import server_options
from visavis.runtime.chunk_order import ChunkPosition
from visavis.runtime.errors import CapacityExhausted, InvalidInput
from visavis.runtime.registry import Registry, StageInstance
from visavis.tensors import tensor_from_numpy
from visavis.v1 import audio_encoder_pb2_grpc, decoder_pb2_grpc, generator_pb2_grpc
from visavis.v1.audio_encoder_pb2 import EncodedChunk, EncodeReady, EncodeResponse
from visavis.v1.chunk_pb2 import ChunkHeader, ModelIdentity, SpeechLatents, StageTiming, VideoLatents
from visavis.v1.decoder_pb2 import DecodedPictures, DecodeReady, DecodeResponse, EncodePortraitResponse
from visavis.v1.generator_pb2 import GeneratedChunk, GenerateReady, GenerateResponse
from visavis.v1.media_pb2 import Frame
from visavis.v1.tensor_pb2 import Tensor

FINGERPRINT = "ab" * 32
SECRET = "secret of the server: /srv/models/weights.bin"


@dataclass
class Faults:
    """What a stage server does wrong, or slowly."""

    chunk_seconds: float = 0.0
    full: bool = False
    dies_at_chunk: int = 0
    dies_at_portrait: bool = False
    hangs_at_chunk: int = 0
    skips_at_chunk: int = 0
    closes_at_chunk: int = 0
    fingerprint: str = FINGERPRINT
    frame_bytes: int = 64


@dataclass
class StageServer:
    """One stage instance; subclasses say what a chunk becomes."""

    stage: ClassVar[str]
    faults: Faults = field(default_factory=Faults)
    slots: int = 4
    instance_id: str = field(default_factory=lambda: os.urandom(4).hex())
    compatibility: str = ""
    headers: list[ChunkHeader] = field(default_factory=list)
    busy: list[tuple[int, float, float]] = field(default_factory=list)
    sessions: set[str] = field(default_factory=set)
    configs: list[Any] = field(default_factory=list)
    address: str = ""
    server: grpc.aio.Server | None = None

    async def start(self) -> None:
        self.server = grpc.aio.server(options=server_options())
        self.add_to(self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        await self.server.start()

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.stop(0)

    async def register(self, registry: Registry, **changes: Any) -> None:
        values: dict[str, Any] = {
            "stage": self.stage,
            "instance_id": self.instance_id,
            "address": self.address,
            "slots": self.slots,
            "used_slots": len(self.sessions),
            "draining": False,
            "model_name": "tiny",
            "model_fingerprint": FINGERPRINT,
            "random_weights": True,
            "width": 64,
            "height": 64,
            "frame_rate": 25,
            "compatibility": self.compatibility,
        }
        await registry.heartbeat(StageInstance(**{**values, **changes}))

    def add_to(self, server: grpc.aio.Server) -> None:
        raise NotImplementedError

    def ready(self) -> Any:
        raise NotImplementedError

    def compute(self, item: Any, timing: StageTiming) -> list[Any]:
        raise NotImplementedError

    async def serve(self, requests: AsyncIterator[Any], context: Any, item_of: Callable[[Any], Any]) -> None:
        await answer(context, self._serve(requests, context, item_of))

    async def _serve(self, requests: AsyncIterator[Any], context: Any, item_of: Callable[[Any], Any]) -> None:
        first = await anext(requests)
        if first.WhichOneof("request") != "config":
            raise InvalidInput("config comes first")
        if self.faults.full or len(self.sessions) >= self.slots:
            raise CapacityExhausted("every slot is taken", 1.5)
        session_id = first.config.session_id
        self.sessions.add(session_id)
        self.configs.append(first.config)
        try:
            await context.write(self.ready())
            await self._answer_chunks(requests, context, item_of)
        finally:
            self.sessions.discard(session_id)

    async def _answer_chunks(self, requests: AsyncIterator[Any], context: Any, item_of: Callable[[Any], Any]) -> None:
        position = ChunkPosition()
        async for request in requests:
            item = item_of(request)
            position = position.advance(item.header, field="chunk")
            self.headers.append(item.header)
            index = item.header.chunk_index
            began = asyncio.get_running_loop().time()
            await asyncio.sleep(self.faults.chunk_seconds)
            self.busy.append((index, began, asyncio.get_running_loop().time()))
            if index == self.faults.dies_at_chunk:
                raise RuntimeError(SECRET)
            if index == self.faults.hangs_at_chunk:
                await asyncio.sleep(3600)
            if index == self.faults.closes_at_chunk:
                return
            if index == self.faults.skips_at_chunk:
                item.header.chunk_index += 1
            timing = StageTiming()
            timing.queued.FromMicroseconds(100)
            timing.computed.FromMicroseconds(round(self.faults.chunk_seconds * 1e6))
            for response in self.compute(item, timing):
                await context.write(response)

    @property
    def identity(self) -> ModelIdentity:
        return ModelIdentity(name="tiny", fingerprint=self.faults.fingerprint, random_weights=True)


class AudioEncoderServer(StageServer, audio_encoder_pb2_grpc.AudioEncoderServiceServicer):
    stage = "audio_encoder"

    def add_to(self, server: grpc.aio.Server) -> None:
        audio_encoder_pb2_grpc.add_AudioEncoderServiceServicer_to_server(self, server)

    async def Encode(self, request_iterator: AsyncIterator[Any], context: Any) -> None:
        await self.serve(request_iterator, context, lambda request: request.chunk)

    def ready(self) -> EncodeResponse:
        return EncodeResponse(ready=EncodeReady(model=self.identity))

    def compute(self, item: Any, timing: StageTiming) -> list[EncodeResponse]:
        if len(item.samples) != 15_360 * 4 or len(item.lookahead) > 1_280 * 4:
            raise InvalidInput("wrong number of samples")
        speech = SpeechLatents(header=item.header, latents=hash_tensor(item.samples, item.lookahead))
        return [EncodeResponse(chunk=EncodedChunk(speech=speech, timing=timing))]


class GeneratorServer(StageServer, generator_pb2_grpc.GeneratorServiceServicer):
    stage = "generator"

    def add_to(self, server: grpc.aio.Server) -> None:
        generator_pb2_grpc.add_GeneratorServiceServicer_to_server(self, server)

    async def Generate(self, request_iterator: AsyncIterator[Any], context: Any) -> None:
        await self.serve(request_iterator, context, lambda request: request.speech)

    def ready(self) -> GenerateResponse:
        ready = GenerateReady(model=self.identity, generator_id=self.instance_id, fencing_token=1)
        return GenerateResponse(ready=ready)

    def compute(self, item: Any, timing: StageTiming) -> list[GenerateResponse]:
        seed = str(self.configs[-1].seed).encode()
        video = VideoLatents(header=item.header, latents=hash_tensor(item.latents.data, seed))
        return [GenerateResponse(chunk=GeneratedChunk(video=video, timing=timing))]


class DecoderServer(StageServer, decoder_pb2_grpc.DecoderServiceServicer):
    stage = "decoder"

    def add_to(self, server: grpc.aio.Server) -> None:
        decoder_pb2_grpc.add_DecoderServiceServicer_to_server(self, server)

    async def Decode(self, request_iterator: AsyncIterator[Any], context: Any) -> None:
        await self.serve(request_iterator, context, lambda request: request.video)

    async def EncodePortrait(self, request: Any, context: Any) -> EncodePortraitResponse:
        return await answer(context, self._encode_portrait(request.portrait))  # type: ignore[return-value]

    async def _encode_portrait(self, portrait: bytes) -> EncodePortraitResponse:
        if self.faults.full:
            raise CapacityExhausted("too many portraits", 1.5)
        if self.faults.dies_at_portrait:
            raise RuntimeError(SECRET)
        if not portrait.startswith(b"\xff\xd8"):
            raise InvalidInput("the portrait is no JPEG or PNG", "portrait")
        return EncodePortraitResponse(
            portrait_latent=hash_tensor(portrait), model=self.identity, thumbnail=b"thumbnail"
        )

    def ready(self) -> DecodeResponse:
        return DecodeResponse(ready=DecodeReady(model=self.identity, width=64, height=64))

    def compute(self, item: Any, timing: StageTiming) -> list[DecodeResponse]:
        frames = [Frame(data=self._picture(item.latents.data, n), key_frame=True) for n in range(24)]
        return [
            DecodeResponse(
                pictures=DecodedPictures(
                    header=item.header,
                    frame_offset=offset,
                    frames=frames[offset : offset + 10],
                    last_in_chunk=offset == 20,
                    timing=timing if offset == 20 else None,
                )
            )
            for offset in (0, 10, 20)
        ]

    def _picture(self, latents: bytes, index: int) -> bytes:
        digest = hashlib.sha256(latents + bytes([index])).digest()
        return digest.ljust(self.faults.frame_bytes, b"\0")


def hash_tensor(*parts: bytes) -> Tensor:
    digest = hashlib.sha256(b"".join(parts)).digest()
    return tensor_from_numpy(np.frombuffer(digest, "<f4").reshape(1, 2, 2, 2))
