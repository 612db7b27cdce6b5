"""A fake of the public service: real gRPC, invented pictures. The picture of frame n has the brightness n."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import numpy as np
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from visavis.v1 import chunk_pb2, media_pb2, talking_head_pb2, talking_head_pb2_grpc

SIZE = 4
FRAMES = 24
CHUNK = duration_pb2.Duration(nanos=960_000_000)
MODEL = chunk_pb2.ModelIdentity(name="fake", fingerprint="00", random_weights=True)


class FakeService(talking_head_pb2_grpc.TalkingHeadServiceServicer):
    """Answers 0.96 s of speech with one chunk at once.

    requests: everything that came on the last `Talk`. aborted: whether it ended without EndOfAudio.
    """

    def __init__(self) -> None:
        self.requests: list[talking_head_pb2.TalkRequest] = []
        self.aborted = False
        self.portraits: list[bytes] = []
        self.deleted: list[str] = []
        self.full = False
        # What a new session is told instead of an answer, as transports do: no reason, no advice.
        self.breaks_with: grpc.StatusCode | None = None

    async def Talk(
        self, requests: AsyncIterator[talking_head_pb2.TalkRequest], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[talking_head_pb2.TalkResponse]:
        self.requests, self.aborted = [], False
        pending, chunks, samples = b"", 0, 0
        async for request in requests:
            self.requests.append(request)
            if len(self.requests) == 3 and self.requests[0].config.avatar_id == "picky":
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "too picky")
            match request.WhichOneof("request"):
                case "config":
                    config = request.config
                    await self._check(config, context)
                    samples = config.audio_format.sample_rate_hz * 24 // 25
                    yield _started(config)
                case "audio":
                    pending += request.audio.pcm
                case "end_of_utterance":
                    pending += bytes(-len(pending) % (2 * samples))
                    yield talking_head_pb2.TalkResponse(
                        utterance_ended=talking_head_pb2.UtteranceEnded(utterance_id=1, last_chunk_index=chunks + 1)
                    )
                case "interrupt":
                    yield talking_head_pb2.TalkResponse(
                        interrupted=talking_head_pb2.Interrupted(epoch=2, last_chunk_index=chunks)
                    )
                case "end_of_audio":
                    ended = talking_head_pb2.SessionEnded(chunks=chunks, frames=chunks * FRAMES)
                    yield talking_head_pb2.TalkResponse(ended=ended)
                    return
            while samples and len(pending) >= 2 * samples:
                chunks += 1
                yield _segment(chunks, samples, pending[: 2 * samples])
                pending = pending[2 * samples :]
        self.aborted = True

    async def _check(self, config: talking_head_pb2.SessionConfig, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        if config.avatar_id not in ("known", "picky"):
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no avatar {config.avatar_id}")
        if self.breaks_with is not None:
            await context.abort(self.breaks_with, self.breaks_with.name)
        if self.full:
            retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=1, nanos=500_000_000))
            await context.abort_with_status(rich_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry))

    async def RegisterAvatar(
        self, request: talking_head_pb2.RegisterAvatarRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> talking_head_pb2.RegisterAvatarResponse:
        self.portraits.append(request.portrait)
        avatar = talking_head_pb2.Avatar(avatar_id="known", display_name=request.display_name, consent=request.consent)
        return talking_head_pb2.RegisterAvatarResponse(avatar=avatar)

    async def ListAvatars(
        self, request: talking_head_pb2.ListAvatarsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> talking_head_pb2.ListAvatarsResponse:
        page = int(request.page_token or 0)
        avatars = [talking_head_pb2.Avatar(avatar_id=f"avatar {page}")]
        return talking_head_pb2.ListAvatarsResponse(avatars=avatars, next_page_token=str(page + 1) if page < 2 else "")

    async def GetAvatar(
        self, request: talking_head_pb2.GetAvatarRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> talking_head_pb2.GetAvatarResponse:
        avatar = talking_head_pb2.Avatar(avatar_id=request.avatar_id)
        return talking_head_pb2.GetAvatarResponse(avatar=avatar, thumbnail=b"jpeg")

    async def DeleteAvatar(
        self, request: talking_head_pb2.DeleteAvatarRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> talking_head_pb2.DeleteAvatarResponse:
        self.deleted.append(request.avatar_id)
        return talking_head_pb2.DeleteAvatarResponse()

    async def GetCapacity(
        self, request: talking_head_pb2.GetCapacityRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> talking_head_pb2.GetCapacityResponse:
        stage = talking_head_pb2.StageCapacity(stage="generator", instances=2, slots=8, used_slots=3)
        return talking_head_pb2.GetCapacityResponse(slots=8, used_slots=3, stages=[stage])

    async def GetServerInfo(
        self, request: talking_head_pb2.GetServerInfoRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> talking_head_pb2.GetServerInfoResponse:
        return talking_head_pb2.GetServerInfoResponse(
            version="1", model=MODEL, width=SIZE, height=SIZE, frame_rate=25, chunk_duration=CHUNK
        )


@asynccontextmanager
async def serve_fake(service: FakeService) -> AsyncIterator[str]:
    """Serves it on a free port and gives the address."""
    server = grpc.aio.server()
    talking_head_pb2_grpc.add_TalkingHeadServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def rich_status(code: grpc.StatusCode, message: str, *details: Message) -> grpc.Status:
    """A status with google.rpc details."""
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return rpc_status.to_status(status_pb2.Status(code=code.value[0], message=message, details=packed))


def _started(config: talking_head_pb2.SessionConfig) -> talking_head_pb2.TalkResponse:
    started = talking_head_pb2.SessionStarted(
        session_id="s", seed=config.seed, width=SIZE, height=SIZE, frame_rate=25, model=MODEL
    )
    return talking_head_pb2.TalkResponse(started=started)


def _segment(chunk_index: int, samples: int, pcm: bytes) -> talking_head_pb2.TalkResponse:
    first = FRAMES * (chunk_index - 1) + 1
    segment = talking_head_pb2.VideoSegment(
        epoch=1,
        utterance_id=1,
        chunk_index=chunk_index,
        first_frame_index=first,
        presentation_time=duration_pb2.Duration(nanos=(first - 1) * 40_000_000 % 10**9, seconds=(first - 1) // 25),
        frames=[_frame(first + index) for index in range(FRAMES)],
        audio_start_sample=(chunk_index - 1) * samples,
        audio_end_sample=chunk_index * samples,
        pcm=pcm,
        last_in_chunk=True,
        timing=talking_head_pb2.ChunkTiming(total=duration_pb2.Duration(nanos=250_000_000)),
        synthetic=True,
    )
    return talking_head_pb2.TalkResponse(segment=segment)


def _frame(number: int) -> media_pb2.Frame:
    return media_pb2.Frame(data=np.full((SIZE, SIZE, 3), number % 256, np.uint8).tobytes(), key_frame=True)
