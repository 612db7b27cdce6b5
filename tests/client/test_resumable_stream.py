"""Breaks at the worst moments, on streams that a test breaks by hand."""

import asyncio
from typing import Any, cast

import grpc
import pytest

from visavis.client.errors import ServerUnavailable, SessionClosed
from visavis.client.records import SessionStart
from visavis.client.resumable_stream import ResumableStream
from visavis.client.talk_stream import TalkStream
from visavis.v1.talking_head_pb2 import (
    AudioInput,
    SessionEnded,
    SessionResumed,
    SessionStarted,
    TalkRequest,
    TalkResponse,
)

BROKEN = ServerUnavailable("broken", code=grpc.StatusCode.UNAVAILABLE)
STARTED = SessionStarted(session_id="s", resume_token="s.x")
STARTED.resume_window.FromSeconds(60)


class HandMadeStream:
    """Takes writes once it is `open`; its reader gets what is put into `responses`, or an error."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.writing = asyncio.Event()
        self.responses: asyncio.Queue[TalkResponse | ServerUnavailable] = asyncio.Queue()

    async def write(self, request: TalkRequest) -> None:
        self.writing.set()
        await self.open.wait()

    async def read(self) -> TalkResponse:
        response = await self.responses.get()
        if isinstance(response, ServerUnavailable):
            raise response
        return response

    async def finish(self) -> None:
        pass

    async def close(self) -> None:
        pass


async def test_a_stream_that_breaks_while_speech_is_sent_again_and_takes_it_all_the_same() -> None:
    """The recovery ends well then, and only the reader knows that its stream is gone."""
    streams = [HandMadeStream() for _ in range(3)]
    streams[0].open.set()
    streams[2].open.set()
    following = iter(streams[1:])

    async def reopen(request: TalkRequest) -> tuple[TalkStream, TalkResponse]:
        return cast(TalkStream, next(following)), TalkResponse(resumed=SessionResumed(started=STARTED, epoch=1))

    first: Any = streams[0]
    resumable = ResumableStream(first, SessionStart.from_message(STARTED), 2, reopen)
    await resumable.send(TalkRequest(audio=AudioInput(pcm=b"1234")))
    streams[0].responses.put_nowait(BROKEN)
    assert (await resumable.receive()).HasField("resumed")
    await streams[1].writing.wait()
    receiving = asyncio.create_task(resumable.receive())
    streams[1].responses.put_nowait(BROKEN)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    streams[1].open.set()
    streams[2].responses.put_nowait(TalkResponse(ended=SessionEnded()))
    async with asyncio.timeout(60):
        assert (await receiving).HasField("resumed")
        assert (await resumable.receive()).HasField("ended")
    await resumable.close()


async def test_closing_while_a_stream_is_resumed_tells_the_reader() -> None:
    reopening = asyncio.Event()

    async def reopen(request: TalkRequest) -> tuple[TalkStream, TalkResponse]:
        reopening.set()
        await asyncio.Event().wait()
        raise AssertionError("it never comes back")

    first: Any = HandMadeStream()
    resumable = ResumableStream(first, SessionStart.from_message(STARTED), 2, reopen)
    first.responses.put_nowait(BROKEN)
    receiving = asyncio.create_task(resumable.receive())
    async with asyncio.timeout(60):
        await reopening.wait()
        await resumable.close()
        with pytest.raises(SessionClosed):
            await receiving
