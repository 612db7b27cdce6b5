"""Drives one `Talk` stream by hand, message by message."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from gateway.audio_format import PcmFormat
from tests.gateway.gateway_harness import GatewayUnderTest
from tests.gateway.strategies import S16
from visavis.runtime.errors import VisavisError, error_from_rpc
from visavis.v1 import media_pb2, talking_head_pb2
from visavis.v1.media_pb2 import AudioFormat, VideoFormat
from visavis.v1.talking_head_pb2 import (
    AudioInput,
    EndOfAudio,
    EndOfUtterance,
    Interrupt,
    SessionConfig,
    TalkRequest,
    TalkResponse,
    VideoSegment,
)

MONO_16K = PcmFormat(S16, 16_000, 1)
PAUSE = talking_head_pb2.IDLE_BEHAVIOR_PAUSE
LIVE = talking_head_pb2.IDLE_BEHAVIOR_LIVE

# What must happen is waited for: only what never happens takes as long, however slow or busy the machine is.
LIMIT_SECONDS: Final = 60.0


@dataclass
class TalkStream:
    """One stream; `received` keeps every response."""

    call: grpc.aio.StreamStreamCall[TalkRequest, TalkResponse]
    received: list[TalkResponse] = field(default_factory=list)

    async def send(self, request: TalkRequest) -> None:
        await self.call.write(request)

    async def speak(self, pcm: bytes, block_bytes: int = 1 << 16) -> None:
        for start in range(0, len(pcm), block_bytes):
            await self.send(TalkRequest(audio=AudioInput(pcm=pcm[start : start + block_bytes])))

    async def end_utterance(self) -> None:
        await self.send(TalkRequest(end_of_utterance=EndOfUtterance()))

    async def end_audio(self) -> None:
        await self.send(TalkRequest(end_of_audio=EndOfAudio()))

    async def interrupt(self, played_samples: int | None = None) -> None:
        await self.send(TalkRequest(interrupt=Interrupt(played_samples=played_samples)))

    async def next(self, timeout: float = LIMIT_SECONDS) -> TalkResponse:
        async with asyncio.timeout(timeout):
            response = await self.call.read()
        assert isinstance(response, TalkResponse), "the stream has ended"
        self.received.append(response)
        return response

    async def until(self, kind: str, timeout: float = LIMIT_SECONDS) -> TalkResponse:
        """Reads up to and including the first response of a kind."""
        async with asyncio.timeout(timeout):
            while (response := await self.next(timeout)).WhichOneof("response") != kind:
                pass
        return response

    async def rest(self, timeout: float = LIMIT_SECONDS) -> list[TalkResponse]:
        """Reads to the end of the stream; raises the domain error of a bad status. Gives everything received."""
        try:
            async with asyncio.timeout(timeout):
                while isinstance(response := await self.call.read(), TalkResponse):
                    self.received.append(response)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error
        assert await self.call.code() is grpc.StatusCode.OK
        return self.received

    async def failure(self, timeout: float = LIMIT_SECONDS) -> VisavisError:
        """Reads to the end, which must be an error."""
        try:
            await self.rest(timeout)
        except VisavisError as error:
            return error
        raise AssertionError("the stream ended with OK")

    @property
    def segments(self) -> list[VideoSegment]:
        return [response.segment for response in self.received if response.HasField("segment")]

    @property
    def kinds(self) -> list[str | None]:
        return [response.WhichOneof("response") for response in self.received]


def session_config(avatar_id: str, pcm_format: PcmFormat = MONO_16K, **changes: Any) -> SessionConfig:
    values: dict[str, Any] = {
        "avatar_id": avatar_id,
        "audio_format": AudioFormat(
            encoding=pcm_format.encoding,
            sample_rate_hz=pcm_format.sample_rate_hz,
            channel_count=pcm_format.channel_count,
        ),
        "video_format": VideoFormat(codec=media_pb2.VIDEO_CODEC_JPEG),
        "seed": 7,
        "idle_behavior": PAUSE,
    }
    return SessionConfig(**{**values, **changes})


@asynccontextmanager
async def open_stream(gateway: GatewayUnderTest) -> AsyncIterator[TalkStream]:
    """A stream on which nothing has been sent; cancelled at the end."""
    call = gateway.stub.Talk()
    try:
        yield TalkStream(call)
    finally:
        call.cancel()


@asynccontextmanager
async def talking(
    gateway: GatewayUnderTest, audio_format: PcmFormat = MONO_16K, avatar_id: str = "", **changes: Any
) -> AsyncIterator[TalkStream]:
    """A started session with a new avatar."""
    async with open_stream(gateway) as stream:
        avatar_id = avatar_id or await gateway.register_avatar()
        await stream.send(TalkRequest(config=session_config(avatar_id, audio_format, **changes)))
        await stream.until("started")
        yield stream


def frames_of(segments: Sequence[VideoSegment]) -> list[bytes]:
    return [frame.data for segment in segments for frame in segment.frames]


async def eventually(condition: Any, seconds: float = LIMIT_SECONDS) -> None:
    """Waits until `condition()`, which may be a coroutine, holds; fails when it does not within `seconds`."""
    async with asyncio.timeout(seconds):
        while not await _value(condition()):  # noqa: ASYNC110  # it looks at what servers do, which tell nobody
            await asyncio.sleep(0.01)


async def _value(found: Any) -> Any:
    return await found if inspect.isawaitable(found) else found
