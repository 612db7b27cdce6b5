"""A client that takes frames slower than they are due, under DROP."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway.gateway_harness import GatewayUnderTest, one_of_each, running_gateway
from tests.gateway.recorded_talk import recorded_talk
from tests.gateway.strategies import noise_pcm
from tests.gateway.talk_client import LIVE, MONO_16K, eventually
from visavis.v1 import talking_head_pb2

DROP = talking_head_pb2.SLOW_READER_POLICY_DROP
QUICK = {"SLOW_READER_SECONDS": "0.2", "IDLE_START_SECONDS": "0.05"}
# Of a machine that stands still for a while nobody says that its client reads too slowly, or that it is silent.
PATIENT = {"SLOW_READER_SECONDS": "5", "IDLE_START_SECONDS": "60"}
SPEECH = noise_pcm(MONO_16K, 6 * 15_360, 1)


def dropped_chunks(gateway: GatewayUnderTest) -> float:
    return gateway.metric("visavis_gateway_dropped_chunks_total", reason="slow_reader")


@pytest.mark.parametrize("key_frame_every", [1, 10_000], ids=["every frame a key", "as H.264"])
async def test_it_gets_the_newest_chunk_and_is_told_what_it_lost(redis_url: str, key_frame_every: int) -> None:
    stages = one_of_each()
    # A chunk is 4.8 MB: more than the connection holds.
    stages[2].faults.frame_bytes = 200_000
    stages[2].faults.key_frame_every = key_frame_every
    async with (
        running_gateway(redis_url, stages, **QUICK) as gateway,
        recorded_talk(gateway, idle_behavior=LIVE, slow_reader_policy=DROP) as talk,
    ):
        await talk.speak(SPEECH)
        await talk.end_utterance()
        await talk.until_chunk(1, complete=False)
        await eventually(lambda: dropped_chunks(gateway))
        # It reads on, at last.
        dropped = (await talk.until("dropped")).dropped
        assert 1 < dropped.first_chunk_index <= dropped.last_chunk_index
        behind = (await talk.until("segment")).segment
        while behind.chunk_index <= dropped.last_chunk_index:
            behind = (await talk.until("segment")).segment
        assert behind.frames[0].key_frame, "it can be shown without what was dropped"
        # A chunk that was not with the decoder when others were dropped.
        await talk.speak(SPEECH[:30_720])
        await talk.end_audio()
        await talk.finish()
        talk.check()
        lost = [
            range(r.dropped.first_chunk_index, r.dropped.last_chunk_index + 1)
            for r in talk.history.received
            if r.HasField("dropped")
        ]
        chunks = sum(len(each) for each in lost)
        assert dropped_chunks(gateway) == chunks
        assert any(header.restart_pictures for header in stages[2].headers)


async def test_a_reader_in_time_loses_nothing(redis_url: str) -> None:
    async with (
        running_gateway(redis_url, None, **PATIENT) as gateway,
        recorded_talk(gateway, idle_behavior=LIVE, slow_reader_policy=DROP) as talk,
    ):
        began = asyncio.get_running_loop().time()
        await talk.speak(SPEECH)
        await talk.end_audio()
        await talk.finish()
        talk.check()
        assert not any(response.HasField("dropped") for response in talk.history.received)
        assert len(talk.segments) == 18
        # Nothing runs further ahead of real time than three chunks.
        assert asyncio.get_running_loop().time() - began > 1.5


async def test_an_interruption_of_a_slow_reader(redis_url: str) -> None:
    stages = one_of_each()
    stages[2].faults.frame_bytes = 200_000
    stages[2].faults.key_frame_every = 10_000
    async with (
        running_gateway(redis_url, stages, **QUICK) as gateway,
        recorded_talk(gateway, idle_behavior=LIVE, slow_reader_policy=DROP) as talk,
    ):
        await talk.speak(SPEECH)
        await talk.end_utterance()
        await talk.until_chunk(1, complete=False)
        await eventually(lambda: dropped_chunks(gateway))
        await talk.interrupt()
        await talk.until("interrupted")
        await talk.until("segment")
        assert talk.segments[-1].frames[0].key_frame
        await talk.end_audio()
        await talk.finish()
        talk.check()


async def test_a_slow_client_slows_no_other(redis_url: str) -> None:
    stages = one_of_each()
    stages[2].faults.frame_bytes = 200_000
    async with (
        running_gateway(redis_url, stages) as gateway,
        recorded_talk(gateway) as slow,
        recorded_talk(gateway) as quick,
    ):
        await slow.speak(SPEECH)
        # The other is served to its end while this one reads nothing.
        await quick.speak(SPEECH)
        await quick.end_audio()
        await quick.finish()
        quick.check()
        await slow.end_audio()
        await slow.finish()
        slow.check()
