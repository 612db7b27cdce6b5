"""What a gateway hears of a stage that ends its stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from gateway.metrics import GatewayMetrics
from gateway.stage_stream import StageStream
from visavis.runtime.boundary import answer
from visavis.runtime.channels import channel_options, create_server
from visavis.runtime.errors import CapacityExhausted, SessionMoved, StageUnavailable, VisavisError
from visavis.runtime.telemetry import Metrics
from visavis.v1 import audio_encoder_pb2_grpc
from visavis.v1.audio_encoder_pb2 import EncodeConfig, EncodeReady, EncodeRequest, EncodeResponse, SpeechChunk

CHUNK = EncodeRequest(chunk=SpeechChunk(samples=bytes(61_440)))


class EndingEncoder(audio_encoder_pb2_grpc.AudioEncoderServiceServicer):
    """Ends each stream as its session's id says: at once, or behind two chunks."""

    async def Encode(self, request_iterator: AsyncIterator[EncodeRequest], context: Any) -> None:
        await answer(context, self._serve(request_iterator, context))

    async def _serve(self, requests: AsyncIterator[EncodeRequest], context: Any) -> None:
        first = await anext(requests)
        match first.config.session_id:
            case "full":
                raise CapacityExhausted("every slot is taken", 2.5)
            case "silent":
                return
        await context.write(EncodeResponse(ready=EncodeReady(replay_chunks=3)))
        for _ in range(2):
            await anext(requests)
        if first.config.session_id == "moved":
            raise SessionMoved("its state was taken")


@pytest.fixture
async def stub() -> AsyncIterator[Any]:
    server = create_server()
    audio_encoder_pb2_grpc.add_AudioEncoderServiceServicer_to_server(EndingEncoder(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=channel_options()) as channel:
        yield audio_encoder_pb2_grpc.AudioEncoderServiceStub(channel)
    await server.stop(0)


@contextlib.contextmanager
def stream_to(stub: Any) -> Any:
    stream: StageStream[EncodeRequest, EncodeResponse] = StageStream(
        "audio_encoder", stub.Encode(), 60.0, GatewayMetrics(Metrics("gateway"))
    )
    try:
        yield stream
    finally:
        stream.cancel()


async def ended(stub: Any, session_id: str) -> VisavisError:
    """What `receive` says of a stream into which chunks go without a pause."""
    with stream_to(stub) as stream:
        await stream.open(EncodeRequest(config=EncodeConfig(session_id=session_id)), 60)

        async def send_on() -> None:
            while await stream.send(CHUNK, owes_answer=False):
                pass

        sending = asyncio.create_task(send_on())
        try:
            await stream.receive()
        except VisavisError as error:
            return error
        finally:
            await sending
    raise AssertionError("the stream goes on")


async def test_the_stages_own_status_is_seen_behind_a_write_that_comes_too_late(stub: Any) -> None:
    for _ in range(30):
        error = await ended(stub, "moved")
        assert isinstance(error, SessionMoved)
        assert error.message == "its state was taken"


async def test_a_stage_that_ends_without_a_word_is_unavailable(stub: Any) -> None:
    for _ in range(10):
        assert type(await ended(stub, "ends")) is StageUnavailable


async def test_what_a_stage_says_instead_of_ready(stub: Any) -> None:
    for session_id, wanted in (("full", CapacityExhausted), ("silent", StageUnavailable)):
        with stream_to(stub) as stream, pytest.raises(wanted) as refusal:
            await stream.open(EncodeRequest(config=EncodeConfig(session_id=session_id)), 60)
        assert refusal.value.retry_after_seconds == (2.5 if session_id == "full" else 1.0)
