"""A gateway as a process that is rolled or killed in the middle of a session."""

from __future__ import annotations

import signal
from dataclasses import replace

import grpc
import pytest

from tests.gateway.gateway_harness import one_of_each, running_gateway
from tests.gateway.gateway_process import gateway_process
from tests.gateway.recorded_talk import RecordedTalk, gone, recorded_talk, undisturbed_pictures
from tests.gateway.strategies import noise_pcm
from tests.gateway.talk_client import LIMIT_SECONDS, MONO_16K, eventually
from visavis.runtime.errors import Draining, VisavisError, error_from_rpc
from visavis.v1.talking_head_pb2_grpc import TalkingHeadServiceStub

SPEECH = noise_pcm(MONO_16K, 9 * 15_360, 1)


async def read_to_the_break(talk: RecordedTalk) -> VisavisError:
    """Takes what still comes; gives the status at the end."""
    try:
        while True:
            await talk.next()
    except grpc.aio.AioRpcError as error:
        await gone(talk.stream.call)
        return error_from_rpc(error)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["rolled", "killed"])
async def test_its_sessions_go_on_at_another(redis_url: str, number: signal.Signals) -> None:
    stages = one_of_each()
    for stage in stages:
        stage.faults.chunk_seconds = 0.1
    async with running_gateway(redis_url, stages) as other:
        wanted = await undisturbed_pictures(other, SPEECH)
        with gateway_process(redis_url, DRAIN_SECONDS="0", CHECKPOINT_CHUNKS="1") as process:
            address = process.wait_ready()["address"]
            async with grpc.aio.insecure_channel(address) as channel:
                lost = replace(other, stub=TalkingHeadServiceStub(channel))
                async with recorded_talk(lost) as talk:
                    await talk.speak(SPEECH)
                    await talk.until_chunk(3)
                    process.process.send_signal(number)
                    error = await read_to_the_break(talk)
                    assert error.code is grpc.StatusCode.UNAVAILABLE
                    assert isinstance(error, Draining) == (number == signal.SIGTERM)
                    await talk.resume(other)
                    await talk.end_audio()
                    await talk.finish()
                    talk.check()
                    if number == signal.SIGTERM:
                        assert talk.pictures() == wanted, "its last checkpoint is exactly what the client has"
            process.process.wait(timeout=LIMIT_SECONDS)
        await eventually(lambda: not any(stage.sessions for stage in stages))
