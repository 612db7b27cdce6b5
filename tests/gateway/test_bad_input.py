"""What a client does wrong: each a clear status, and nothing stays behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import numpy as np
import pytest

from tests.gateway.gateway_harness import GatewayUnderTest, one_of_each, running_gateway
from tests.gateway.strategies import F32, S16, noise_pcm
from tests.gateway.talk_client import MONO_16K, TalkStream, eventually, open_stream, session_config, talking
from visavis.runtime.errors import DeadlineMissed, InvalidInput, LimitExceeded, NotFound, SessionAborted
from visavis.v1 import talking_head_pb2
from visavis.v1.media_pb2 import AudioFormat
from visavis.v1.talking_head_pb2 import AudioInput, EndOfAudio, Interrupt, ResumeSession, SessionConfig, TalkRequest

DROP = talking_head_pb2.SLOW_READER_POLICY_DROP
SPEECH = noise_pcm(MONO_16K, 15_360, 1)
# Long over the limits of a stall: what is told in spite of it was not waited for.
NEVER = 3600.0
PATIENT = {"STAGE_STALL_SECONDS": "3600"}


def nothing_is_held(gateway: GatewayUnderTest) -> bool:
    return not any(stage.sessions for stage in gateway.stages) and gateway.runtime.slots.used_slots == 0


async def test_audio_before_config(redis_url: str) -> None:
    async with running_gateway(redis_url) as gateway, open_stream(gateway) as stream:
        await stream.speak(SPEECH)
        error = await stream.failure()
    assert isinstance(error, InvalidInput)
    assert error.field == "audio"
    assert "config" in error.message


async def test_nothing_at_all(redis_url: str) -> None:
    async with running_gateway(redis_url) as gateway, open_stream(gateway) as stream:
        await stream.call.done_writing()
        assert isinstance(await stream.failure(), InvalidInput)


async def test_config_must_come_in_time(redis_url: str) -> None:
    async with running_gateway(redis_url, CONFIG_TIMEOUT_SECONDS="0.1") as gateway, open_stream(gateway) as stream:
        assert isinstance(await stream.failure(), DeadlineMissed)


async def test_unknown_avatar(redis_url: str) -> None:
    async with running_gateway(redis_url) as gateway, open_stream(gateway) as stream:
        await stream.send(TalkRequest(config=session_config("nobody")))
        error = await stream.failure()
        assert isinstance(error, NotFound)
        assert "nobody" in error.message
        assert nothing_is_held(gateway)


def _rate(sample_rate_hz: int) -> AudioFormat:
    return AudioFormat(encoding=S16, sample_rate_hz=sample_rate_hz)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (SessionConfig(), "config.avatar_id"),
        (session_config("a", audio_format=_rate(7_975)), "config.audio_format.sample_rate_hz"),
        (session_config("a", audio_format=_rate(44_101)), "config.audio_format.sample_rate_hz"),
        (session_config("a", audio_format=_rate(192_000)), "config.audio_format.sample_rate_hz"),
        (session_config("a", idle_behavior=9), "config.idle_behavior"),
        (session_config("a", starvation_policy=9), "config.starvation_policy"),
        (session_config("a", slow_reader_policy=9), "config.slow_reader_policy"),
        (session_config("a", slow_reader_policy=DROP), "config.slow_reader_policy"),
    ],
    ids=[
        "no avatar",
        "rate too low",
        "odd rate",
        "rate too high",
        "idle behaviour",
        "starvation policy",
        "slow reader",
        "dropping where nothing lives",
    ],
)
async def test_impossible_configs(redis_url: str, config: SessionConfig, field: str) -> None:
    async with running_gateway(redis_url) as gateway, open_stream(gateway) as stream:
        await stream.send(TalkRequest(config=config))
        error = await stream.failure()
    assert isinstance(error, InvalidInput)
    assert error.field == field


BAD_REQUESTS: dict[str, Callable[[], TalkRequest]] = {
    "resume in a running session": lambda: TalkRequest(resume=ResumeSession(resume_token="a.b")),
    "second config": lambda: TalkRequest(config=session_config("a")),
    "empty audio": lambda: TalkRequest(audio=AudioInput()),
    "partial sample": lambda: TalkRequest(audio=AudioInput(pcm=b"\0" * 7)),
    "not a number": lambda: TalkRequest(audio=AudioInput(pcm=np.array([0, np.nan], "<f4").tobytes())),
    "infinity": lambda: TalkRequest(audio=AudioInput(pcm=np.array([np.inf], "<f4").tobytes())),
    "audio over 1 MiB": lambda: TalkRequest(audio=AudioInput(pcm=bytes((1 << 20) + 4))),
    "negative position": lambda: TalkRequest(interrupt=Interrupt(played_samples=-1)),
    "empty request": TalkRequest,
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
async def test_bad_requests_in_a_running_session(redis_url: str, name: str) -> None:
    floats = type(MONO_16K)(F32, 16_000, 1)
    async with running_gateway(redis_url) as gateway, talking(gateway, floats) as stream:
        await stream.speak(noise_pcm(floats, 20_000, 1))
        await stream.send(BAD_REQUESTS[name]())
        error = await stream.failure()
        assert isinstance(error, InvalidInput)
        assert error.field
        await eventually(lambda: nothing_is_held(gateway))


async def test_nothing_may_follow_the_end_of_audio(redis_url: str) -> None:
    stages = one_of_each()
    stages[0].faults.chunk_seconds = NEVER
    async with running_gateway(redis_url, stages, **PATIENT) as gateway, talking(gateway) as stream:
        await stream.speak(SPEECH)
        await stream.end_audio()
        await stream.send(TalkRequest(end_of_audio=EndOfAudio()))
        assert isinstance(await stream.failure(), InvalidInput)


async def test_a_message_over_the_limit(redis_url: str) -> None:
    async with running_gateway(redis_url) as gateway, talking(gateway) as first:
        avatar_id = await gateway.register_avatar()
        await first.end_audio()
        await first.rest()
        # Another channel, whose own limit does not stop the message.
        options = [("grpc.max_send_message_length", 64 << 20)]
        async with grpc.aio.insecure_channel(gateway.address, options=options) as channel:
            call = type(gateway.stub)(channel).Talk()
            await call.write(TalkRequest(config=session_config(avatar_id)))
            await call.read()
            await call.write(TalkRequest(audio=AudioInput(pcm=bytes(5 << 20))))
            error = await TalkStream(call).failure()
            call.cancel()
        assert isinstance(error, LimitExceeded)
        await eventually(lambda: nothing_is_held(gateway))


async def test_half_close_without_end_of_audio_drops_the_session_at_once(redis_url: str) -> None:
    stages = one_of_each()
    stages[1].faults.chunk_seconds = NEVER
    async with running_gateway(redis_url, stages, **PATIENT) as gateway, talking(gateway) as stream:
        await stream.speak(SPEECH * 3)
        await eventually(lambda: stages[1].headers)
        await stream.call.done_writing()
        assert isinstance(await stream.failure(), SessionAborted)
        await eventually(lambda: nothing_is_held(gateway))


async def test_a_vanished_client_frees_everything_at_once(redis_url: str) -> None:
    stages = one_of_each()
    stages[1].faults.chunk_seconds = NEVER
    async with running_gateway(redis_url, stages, **PATIENT) as gateway:
        avatar_id = await gateway.register_avatar()
        async with talking(gateway, avatar_id=avatar_id) as stream:
            await stream.speak(SPEECH * 3)
            await eventually(lambda: stages[1].headers)
            assert not nothing_is_held(gateway)
            stream.call.cancel()
            await eventually(lambda: nothing_is_held(gateway))
        assert gateway.metric("visavis_chunks_in_flight", stage="gateway") == 0
        assert len(await gateway.redis.keys("visavis:*:session")) == 1, "it may come back"


async def test_a_slow_client_holds_back_the_encoder(redis_url: str) -> None:
    stages = one_of_each()
    stages[2].faults.frame_bytes = 100_000
    async with running_gateway(redis_url, stages, **PATIENT) as gateway, talking(gateway) as stream:
        for _ in range(20):
            await stream.speak(SPEECH)
        # Time enough to take them all. Each chunk is 2.4 MB; the connection itself buffers some, whoever writes.
        await asyncio.sleep(1)
        assert len(stages[0].headers) <= 3 + 6
        await stream.end_audio()
        await stream.rest()
        assert len(stages[0].headers) == 20


async def test_a_full_speech_buffer_holds_back_the_client(redis_url: str) -> None:
    stages = one_of_each()
    stages[0].faults.chunk_seconds = NEVER
    # 768 KB a second of speech, so that what the connection holds is short.
    loud = type(MONO_16K)(F32, 96_000, 2)
    quarter = noise_pcm(loud, 24_000, 1)
    sent = 0

    async def speak_on(stream: TalkStream) -> None:
        nonlocal sent
        while True:
            await stream.speak(quarter, 1 << 20)
            sent += 1

    async with (
        running_gateway(redis_url, stages, SPEECH_BUFFER_BYTES=str(4 * 768_000), **PATIENT) as gateway,
        talking(gateway, loud) as stream,
    ):
        speaking = asyncio.create_task(speak_on(stream))
        # 4 s in the buffer, 3 chunks in flight, and some MB on the way.
        await eventually(lambda: sent / 4 > 7)
        await asyncio.sleep(1)
        assert sent / 4 < 7 + 12
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)


async def test_a_session_without_a_free_slot_is_refused_at_once(redis_url: str) -> None:
    async with running_gateway(redis_url, SLOTS="1") as gateway, talking(gateway) as stream:
        avatar_id = await gateway.register_avatar()
        async with open_stream(gateway) as second:
            await second.send(TalkRequest(config=session_config(avatar_id)))
            error = await second.failure(timeout=20)
            assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        await stream.end_audio()
        await stream.rest()
