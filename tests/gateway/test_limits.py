"""Sessions that nobody uses, or that never end."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway.gateway_harness import one_of_each, running_gateway
from tests.gateway.recorded_talk import recorded_talk
from tests.gateway.strategies import noise_pcm
from tests.gateway.talk_client import LIVE, MONO_16K, eventually, talking
from visavis.runtime.errors import DeadlineMissed
from visavis.v1 import talking_head_pb2

SPEECH = noise_pcm(MONO_16K, 15_360, 1)


async def test_a_client_that_falls_silent_is_told(redis_url: str) -> None:
    async with running_gateway(redis_url, IDLE_LIMIT_SECONDS="0.3") as gateway, recorded_talk(gateway) as talk:
        await talk.speak(SPEECH)
        await talk.finish()
        talk.check()
        assert talk.history.received[-1].ended.reason == talking_head_pb2.SESSION_END_REASON_IDLE
        await eventually(lambda: not any(stage.sessions for stage in gateway.stages))
        assert gateway.runtime.slots.used_slots == 0


async def test_a_client_whose_speech_is_still_rendered_is_not_idle(redis_url: str) -> None:
    stages = one_of_each()
    stages[0].faults.chunk_seconds = 0.65
    # Waiting for the window takes longer than the limit; beginning to speak does not, on any machine.
    async with (
        running_gateway(redis_url, stages, IDLE_LIMIT_SECONDS="3", WINDOW_CHUNKS="1") as gateway,
        recorded_talk(gateway) as talk,
    ):
        await talk.speak(SPEECH * 6)
        await talk.end_utterance()
        await talk.until_chunk(6)
        talk.check()


async def test_the_silence_after_the_end_of_audio_has_no_limit(redis_url: str) -> None:
    stages = one_of_each()
    stages[0].faults.chunk_seconds = 3.2
    async with running_gateway(redis_url, stages, IDLE_LIMIT_SECONDS="3") as gateway, talking(gateway) as stream:
        await stream.speak(SPEECH)
        await stream.end_audio()
        responses = await stream.rest()
        assert responses[-1].ended.reason == talking_head_pb2.SESSION_END_REASON_END_OF_AUDIO


async def test_a_session_has_a_lifetime(redis_url: str) -> None:
    async with (
        running_gateway(redis_url, SESSION_LIFETIME_SECONDS="0.5") as gateway,
        recorded_talk(gateway, idle_behavior=LIVE) as talk,
    ):
        speaking = asyncio.create_task(_speak_on(talk.speak))
        await talk.finish()
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)
        talk.check()
        assert talk.history.received[-1].ended.reason == talking_head_pb2.SESSION_END_REASON_LIFETIME


async def test_a_client_that_reads_nothing_is_cut_off_when_a_limit_is_reached(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.session_limits.READING_SECONDS", 0.3)
    stages = one_of_each()
    stages[2].faults.frame_bytes = 100_000
    async with (
        running_gateway(redis_url, stages, SESSION_LIFETIME_SECONDS="3") as gateway,
        talking(gateway) as stream,
    ):
        await stream.speak(SPEECH * 8)
        await eventually(lambda: gateway.runtime.slots.used_slots == 0)
        assert isinstance(await stream.failure(), DeadlineMissed)


async def _speak_on(speak: object) -> None:
    while True:
        await speak(SPEECH)  # type: ignore[operator]
        await asyncio.sleep(0.05)
