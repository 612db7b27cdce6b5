"""All three stages in one process, which answer every chunk at once with prepared bytes of the true sizes.

`python -m visavis.bench.instant_stages --redis-url URL`: what a gateway costs by itself is measured in front of it.
Prints a ready line as services do, heartbeats as they do, and runs until SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
import grpc.aio
import numpy as np

from visavis.bench.bundled import bundled_portrait
from visavis.bench.chunk_messages import (
    CODECS,
    SIZES,
    Codec,
    ModelSizes,
    picture_messages,
    speech_latents,
    video_latents,
)
from visavis.runtime.channels import server_options
from visavis.runtime.redis_connection import connect_redis
from visavis.runtime.registry import Registry, StageInstance
from visavis.runtime.settings import RedisSettings
from visavis.tensors import tensor_from_numpy
from visavis.v1.audio_encoder_pb2 import EncodedChunk, EncodeReady, EncodeRequest, EncodeResponse
from visavis.v1.chunk_pb2 import ChunkHeader, ModelIdentity, SpeechLatents, StageTiming, VideoLatents
from visavis.v1.decoder_pb2 import (
    DecodedPictures,
    DecodeReady,
    DecodeRequest,
    DecodeResponse,
    EncodePortraitRequest,
    EncodePortraitResponse,
)
from visavis.v1.generator_pb2 import GeneratedChunk, GenerateReady, GenerateRequest, GenerateResponse

HEARTBEAT_SECONDS: Final = 2.0
REDIS_SECONDS: Final = 2.0
IDENTITY: Final = ModelIdentity(name="instant", fingerprint="0" * 64, random_weights=True)
_TIMING: Final = StageTiming()


@dataclass(frozen=True, slots=True)
class InstantStage:
    """One stage.

    item: the field of a request that carries a chunk. ready: the answer to `config`. answers: those to a chunk, all but
    its header; `with_header` makes the few bytes that add it (fields of a message may come in pieces).
    """

    name: str
    method: str
    request_type: type[Any]
    item: str
    ready: bytes
    answers: Sequence[bytes]
    with_header: Callable[[ChunkHeader], bytes]

    async def serve(self, requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """One session."""
        async for request in requests:
            kind = request.WhichOneof("request")
            if kind == "config":
                await context.write(self.ready)
            elif kind == self.item:
                header = self.with_header(getattr(request, self.item).header)
                for answer in self.answers:
                    await context.write(answer + header)


def instant_stages(sizes: ModelSizes, codec: Codec) -> list[InstantStage]:
    """The three stages for a model's sizes; every session gets pictures of one codec, whatever it asks for."""
    none = ChunkHeader()
    pictures = picture_messages(none, sizes, codec)
    pictures[-1].timing.CopyFrom(_TIMING)
    for message in pictures:
        message.ClearField("header")
    speech, video = speech_latents(none, sizes), video_latents(none, sizes)
    speech.ClearField("header")
    video.ClearField("header")
    size = sizes.picture_size
    return [
        InstantStage(
            "audio_encoder",
            "/visavis.v1.AudioEncoderService/Encode",
            EncodeRequest,
            "chunk",
            EncodeResponse(ready=EncodeReady(model=IDENTITY)).SerializeToString(),
            [EncodeResponse(chunk=EncodedChunk(speech=speech, timing=_TIMING)).SerializeToString()],
            lambda header: EncodeResponse(chunk=EncodedChunk(speech=SpeechLatents(header=header))).SerializeToString(),
        ),
        InstantStage(
            "generator",
            "/visavis.v1.GeneratorService/Generate",
            GenerateRequest,
            "speech",
            GenerateResponse(
                ready=GenerateReady(model=IDENTITY, generator_id="instant-generator", fencing_token=1)
            ).SerializeToString(),
            [GenerateResponse(chunk=GeneratedChunk(video=video, timing=_TIMING)).SerializeToString()],
            lambda header: GenerateResponse(
                chunk=GeneratedChunk(video=VideoLatents(header=header))
            ).SerializeToString(),
        ),
        InstantStage(
            "decoder",
            "/visavis.v1.DecoderService/Decode",
            DecodeRequest,
            "video",
            DecodeResponse(ready=DecodeReady(model=IDENTITY, width=size, height=size)).SerializeToString(),
            [DecodeResponse(pictures=message).SerializeToString() for message in pictures],
            lambda header: DecodeResponse(pictures=DecodedPictures(header=header)).SerializeToString(),
        ),
    ]


def stage_instance(stage: str, address: str, slots: int, size: int) -> StageInstance:
    """The heartbeat of an instant stage."""
    return StageInstance(
        stage=stage,
        instance_id=f"instant-{stage}",
        address=address,
        slots=slots,
        used_slots=0,
        draining=False,
        model_name=IDENTITY.name,
        model_fingerprint=IDENTITY.fingerprint,
        random_weights=True,
        width=size,
        height=size,
        frame_rate=25,
        compatibility="",
    )


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, stages: Sequence[InstantStage], portrait: EncodePortraitResponse) -> None:
        self._stages: Mapping[str, InstantStage] = {stage.method: stage for stage in stages}
        self._portrait = portrait.SerializeToString()

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        if call.method == "/visavis.v1.DecoderService/EncodePortrait":
            return grpc.unary_unary_rpc_method_handler(
                self._encode_portrait, EncodePortraitRequest.FromString, response_serializer=bytes
            )
        stage = self._stages.get(call.method)
        if stage is None:
            return None
        return grpc.stream_stream_rpc_method_handler(stage.serve, stage.request_type.FromString, bytes)

    async def _encode_portrait(self, _request: Any, _context: Any) -> bytes:
        return self._portrait


async def _serve(redis_url: str, sizes: ModelSizes, codec: Codec, slots: int) -> None:
    stages = instant_stages(sizes, codec)
    latent = np.zeros((1, sizes.latent_size, sizes.latent_size, 128), np.float32)
    portrait = EncodePortraitResponse(
        portrait_latent=tensor_from_numpy(latent), model=IDENTITY, thumbnail=bundled_portrait()
    )
    server = grpc.aio.server(options=server_options())
    server.add_generic_rpc_handlers([_Handlers(stages, portrait)])
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    redis = connect_redis(RedisSettings(redis_url, REDIS_SECONDS))
    registry = Registry(redis, heartbeat_seconds=HEARTBEAT_SECONDS, timeout_seconds=REDIS_SECONDS)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    told = False
    while not stop.is_set():
        for stage in stages:
            await registry.heartbeat(stage_instance(stage.name, address, slots, sizes.picture_size))
        if not told:
            print(json.dumps({"event": "ready", "address": address}), flush=True)
            told = True
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                await stop.wait()
        except TimeoutError:
            continue
    await server.stop(0)
    await redis.aclose()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves."""
    parser = argparse.ArgumentParser(prog="python -m visavis.bench.instant_stages", description=__doc__)
    parser.add_argument("--redis-url", required=True)
    parser.add_argument("--sizes", choices=sorted(SIZES), required=True)
    parser.add_argument("--codec", choices=CODECS, required=True)
    parser.add_argument("--slots", type=int, required=True)
    options = parser.parse_args(arguments)
    asyncio.run(_serve(options.redis_url, SIZES[options.sizes], options.codec, options.slots))
    return 0


if __name__ == "__main__":
    sys.exit(main())
