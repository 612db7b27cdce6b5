"""A client by hand that keeps a history, breaks its stream where a test wants it, and resumes as the contract says."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from gateway.audio_format import PcmFormat
from tests.faults.history import History, check
from tests.gateway.gateway_harness import PORTRAIT, GatewayUnderTest
from tests.gateway.stage_servers import hash_tensor, hashed
from tests.gateway.talk_client import LIMIT_SECONDS, MONO_16K, TalkStream, session_config
from visavis.client.journal import InputJournal
from visavis.client.progress import Progress
from visavis.v1.talking_head_pb2 import (
    AudioInput,
    EndOfAudio,
    EndOfUtterance,
    Interrupt,
    TalkRequest,
    TalkResponse,
    VideoSegment,
)

FACE = hashed(hash_tensor(PORTRAIT).data)[:8]


@dataclass
class RecordedTalk:
    """One session over any number of streams; what the SDK keeps to resume is the SDK's own."""

    gateway: GatewayUnderTest
    audio_format: PcmFormat
    stream: TalkStream
    token: str = ""
    history: History = field(init=False)
    journal: InputJournal = field(init=False)
    progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        size = self.audio_format.bytes_per_sample
        self.history = History(size, self.audio_format.samples_per_frame)
        self.journal = InputJournal(size)
        self.progress = Progress(self.journal)

    async def send(self, request: TalkRequest) -> None:
        self.history.send(request)
        self.journal.record(request)
        await self.stream.send(request)

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
        response = await self.stream.next(timeout)
        if self.progress.accept(response):
            self.history.receive(response)
        return response

    async def until(self, kind: str, timeout: float = LIMIT_SECONDS) -> TalkResponse:
        """Reads up to and including the first response of a kind."""
        while (response := await self.next(timeout)).WhichOneof("response") != kind:
            pass
        return response

    async def until_chunk(self, chunk_index: int, *, complete: bool = True) -> None:
        """Reads up to the end of a chunk, or to its first segment."""
        while True:
            response = await self.next()
            if response.segment.chunk_index == chunk_index and (response.segment.last_in_chunk or not complete):
                return

    async def finish(self, timeout: float = LIMIT_SECONDS) -> None:
        """Reads to the end, which must be good."""
        await self.until("ended", timeout)
        await self.stream.rest()

    def break_off(self) -> None:
        """The connection is gone."""
        self.stream.call.cancel()

    async def resume(self, gateway: GatewayUnderTest | None = None) -> TalkResponse:
        """Goes on at a gateway, with what it has not used sent again."""
        self.gateway = gateway or self.gateway
        self.stream = TalkStream(self.gateway.stub.Talk())
        await self.stream.send(self.progress.request(self.token))
        response = await self.stream.next()
        assert response.HasField("resumed"), response
        self.token = response.resumed.started.resume_token
        for notice in (response, *self.progress.resumed(response.resumed)):
            if notice.WhichOneof("response") in ("resumed", "utterance_ended"):
                self.history.receive(notice)
        for request in self.journal.after(response.resumed.epoch, self.progress.position):
            await self.stream.send(request)
        return response

    @property
    def segments(self) -> list[VideoSegment]:
        return self.history.segments

    def pictures(self, epoch: int = 1) -> str:
        """A digest of every picture of an epoch in order."""
        digest = hashlib.sha256()
        for segment in self.segments:
            for frame in segment.frames if segment.epoch == epoch else ():
                digest.update(frame.data)
        return digest.hexdigest()

    def check(self) -> None:
        """Nothing was lost, repeated, mixed up or made up; for pictures of the stage servers of these tests."""
        assert check(self.history, shows_avatar=lambda picture: picture.startswith(FACE)) == []

    def check_order(self) -> None:
        """As `check`, whatever the pictures show."""
        assert check(self.history) == []


@asynccontextmanager
async def recorded_talk(
    gateway: GatewayUnderTest, audio_format: PcmFormat = MONO_16K, *, avatar_id: str = "", **changes: Any
) -> AsyncIterator[RecordedTalk]:
    """A started session, with a new avatar unless one is given."""
    call = gateway.stub.Talk()
    talk = RecordedTalk(gateway, audio_format, TalkStream(call))
    try:
        avatar_id = avatar_id or await gateway.register_avatar()
        await talk.stream.send(TalkRequest(config=session_config(avatar_id, audio_format, **changes)))
        talk.token = (await talk.until("started")).started.resume_token
        yield talk
    finally:
        talk.stream.call.cancel()
        call.cancel()


async def undisturbed_pictures(gateway: GatewayUnderTest, pcm: bytes, **changes: Any) -> str:
    """What one utterance looks like when nothing happens.

    Its places count as used until the gateway reads the heartbeats again; what follows begins after that.
    """
    async with recorded_talk(gateway, **changes) as talk:
        await talk.speak(pcm)
        await talk.end_audio()
        await talk.finish()
        talk.check()
        pictures = talk.pictures()
    await asyncio.sleep(2 * gateway.settings.service.heartbeat_seconds)
    return pictures


async def gone(call: grpc.aio.Call) -> None:
    """Waits until a call has ended."""
    while not call.done():  # noqa: ASYNC110  # grpc.aio has nothing to wait on
        await asyncio.sleep(0.01)
