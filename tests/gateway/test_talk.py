"""A session from config to end: what comes back, in which order, with which sound."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from gateway.audio_format import PcmFormat
from tests.gateway.gateway_harness import one_of_each, running_gateway
from tests.gateway.strategies import F32, S16, noise_pcm
from tests.gateway.talk_client import LIVE, MONO_16K, frames_of, talking
from visavis.v1 import talking_head_pb2


@pytest.mark.parametrize(
    "audio_format",
    [PcmFormat(S16, 16_000, 1), PcmFormat(S16, 22_050, 1), PcmFormat(F32, 48_000, 2), PcmFormat(S16, 8_000, 2)],
    ids=str,
)
async def test_speech_comes_back_with_its_frames(redis_url: str, audio_format: PcmFormat) -> None:
    first = noise_pcm(audio_format, int(2.2 * audio_format.sample_rate_hz), 1)
    second = noise_pcm(audio_format, audio_format.samples_per_chunk, 2)
    async with running_gateway(redis_url) as gateway, talking(gateway, audio_format) as stream:
        await stream.speak(first)
        await stream.end_utterance()
        await stream.speak(second)
        await stream.end_audio()
        responses = await stream.rest()
        assert not any(stage.sessions for stage in gateway.stages), "slots are free when the stream ends"
        assert gateway.runtime.slots.used_slots == 0

    started = responses[0].started
    assert (started.seed, started.width, started.height, started.frame_rate) == (7, 64, 64, 25)
    assert started.model.random_weights
    segments = stream.segments
    chunk_bytes = audio_format.samples_per_chunk * audio_format.bytes_per_sample
    assert b"".join(segment.pcm for segment in segments) == first.ljust(3 * chunk_bytes, b"\0") + second
    assert [segment.utterance_id for segment in segments] == [1] * 9 + [2] * 3
    assert [segment.chunk_index for segment in segments] == [n for n in range(1, 5) for _ in range(3)]
    assert [segment.first_frame_index for segment in segments][:4] == [1, 11, 21, 25]
    assert segments[0].audio_start_sample == 0
    for before, after in pairwise(segments):
        assert before.audio_end_sample == after.audio_start_sample
    assert all(segment.synthetic and segment.epoch == 1 and not segment.idle for segment in segments)
    lasts = [segment for segment in segments if segment.last_in_chunk]
    assert len(lasts) == 4
    for segment in lasts:
        assert segment.timing.audio_encoder.HasField("computed")
        assert segment.timing.generator.HasField("computed")
        assert segment.timing.decoder.HasField("computed")
        assert segment.timing.total.ToNanoseconds() > 0
    notices = [kind for kind in stream.kinds if kind != "segment"]
    assert notices == ["started", "utterance_ended", "utterance_ended", "ended"]
    ended = [response.utterance_ended for response in responses if response.HasField("utterance_ended")]
    assert [(e.utterance_id, e.last_chunk_index) for e in ended] == [(1, 3), (2, 4)]
    last = responses[-1].ended
    assert (last.chunks, last.frames) == (4, 96)
    assert last.reason == talking_head_pb2.SESSION_END_REASON_END_OF_AUDIO


async def test_same_seed_and_speech_give_the_same_frames_whatever_the_packets(redis_url: str) -> None:
    speech = noise_pcm(MONO_16K, 50_000, 3)
    async with running_gateway(redis_url) as gateway:
        frames = []
        for seed, block_bytes in ((7, 1 << 18), (7, 642), (8, 1 << 18)):
            async with talking(gateway, seed=seed) as stream:
                await stream.speak(speech, block_bytes)
                await stream.end_audio()
                await stream.rest()
                frames.append(frames_of(stream.segments))
    assert frames[0] == frames[1]
    assert len(frames[0]) == 96
    assert not set(frames[0]) & set(frames[2])


async def test_without_a_seed_the_server_draws_one_and_says_it(redis_url: str) -> None:
    async with running_gateway(redis_url) as gateway:
        seeds = set()
        for _ in range(2):
            async with talking(gateway, seed=None) as stream:
                seeds.add(stream.received[0].started.seed)
                assert gateway.stages[1].configs[-1].seed == stream.received[0].started.seed
                assert gateway.stages[2].configs[-1].seed == stream.received[0].started.seed
    assert len(seeds) == 2


async def test_a_session_without_audio_just_ends(redis_url: str) -> None:
    async with running_gateway(redis_url) as gateway, talking(gateway) as stream:
        await stream.end_audio()
        responses = await stream.rest()
    assert stream.kinds == ["started", "ended"]
    assert responses[-1].ended.chunks == 0


async def test_all_stages_work_at_once_on_different_chunks(redis_url: str) -> None:
    stages = one_of_each()
    for stage in stages:
        stage.faults.chunk_seconds = 0.1
    async with running_gateway(redis_url, stages) as gateway, talking(gateway) as stream:
        await stream.speak(noise_pcm(MONO_16K, 8 * 15_360, 1))
        await stream.end_audio()
        await stream.rest()
    encoder, generator, decoder = ({i: (a, b) for i, a, b in stage.busy} for stage in stages)
    assert encoder.keys() == generator.keys() == decoder.keys() == set(range(1, 9))
    at_once = [(encoder[i + 1], generator[i], decoder[i - 1]) for i in range(2, 8)]
    overlaps = [each for each in at_once if max(began for began, _ in each) < min(ended for _, ended in each)]
    assert len(overlaps) >= 4, "one after the other none would"


async def test_deadlines_tell_the_stages_what_is_urgent(redis_url: str) -> None:
    clock = asyncio.get_running_loop().time
    async with running_gateway(redis_url) as gateway, talking(gateway) as stream:
        began = clock()
        await stream.speak(noise_pcm(MONO_16K, 3 * 15_360, 1))
        await stream.end_audio()
        await stream.rest()
        passed = clock() - began
        left = [header.time_to_deadline.ToNanoseconds() / 1e9 for header in gateway.stages[0].headers]
    # The first is due when its speech is there, the others one behind the other; each was sent in the time that passed.
    for number, seconds in enumerate(left):
        assert 0.96 * number - passed < seconds < 0.96 * number + 0.001


# Silence and starvation -----------------------------------------------------------------------------------------------


async def test_a_live_face_lives_until_speech_comes(redis_url: str) -> None:
    async with (
        running_gateway(redis_url, IDLE_START_SECONDS="0.1", IDLE_LEAD_SECONDS="0.3") as gateway,
        talking(gateway, idle_behavior=LIVE) as stream,
    ):
        while not (len(stream.segments) == 6 and stream.segments[-1].last_in_chunk):
            await stream.next()
        # The second chunk was begun a lead before the first was shown, not at once.
        (_, first, _), (_, second, _) = gateway.stages[0].busy[:2]
        assert second - first > 0.96 - 0.3 - 0.01
        assert all(segment.idle and segment.utterance_id == 0 for segment in stream.segments)
        assert not any(b"".join(segment.pcm for segment in stream.segments))
        await stream.speak(noise_pcm(MONO_16K, 15_360, 1))
        await stream.end_audio()
        await stream.rest()
        idle = [segment.idle for segment in stream.segments]
        assert idle == [True] * (len(idle) - 3) + [False] * 3
        assert gateway.metric("visavis_gateway_chunks_total", kind="idle") == (len(idle) - 3) / 3


async def test_speech_sent_at_once_finds_no_idle_chunk_in_its_way(redis_url: str) -> None:
    async with (
        running_gateway(redis_url, IDLE_START_SECONDS="60") as gateway,
        talking(gateway, idle_behavior=LIVE) as stream,
    ):
        await stream.speak(noise_pcm(MONO_16K, 20_000, 1))
        await stream.end_audio()
        await stream.rest()
    assert not any(segment.idle for segment in stream.segments)


async def test_waiting_for_the_rest_of_an_utterance_is_told(redis_url: str) -> None:
    async with running_gateway(redis_url) as gateway, talking(gateway) as stream:
        await stream.speak(noise_pcm(MONO_16K, 8_000, 1))
        starved = (await stream.until("starved")).starved
        assert (starved.utterance_id, starved.chunk_index) == (1, 1)
        assert starved.policy == talking_head_pb2.STARVATION_POLICY_WAIT
        await stream.speak(noise_pcm(MONO_16K, 8_000, 2))
        await stream.end_audio()
        await stream.rest()
        assert stream.kinds.count("starved") == 1
        assert gateway.metric("visavis_gateway_starved_chunks_total", policy="wait") == 1
    spoken = noise_pcm(MONO_16K, 8_000, 1) + noise_pcm(MONO_16K, 8_000, 2)
    assert b"".join(segment.pcm for segment in stream.segments).startswith(spoken)


async def test_a_starved_chunk_is_filled_where_the_session_asks_for_it(redis_url: str) -> None:
    fill = talking_head_pb2.STARVATION_POLICY_FILL
    async with running_gateway(redis_url) as gateway, talking(gateway, starvation_policy=fill) as stream:
        await stream.speak(noise_pcm(MONO_16K, 8_000, 1))
        assert (await stream.until("starved")).starved.policy == fill
        while not (stream.segments and stream.segments[-1].last_in_chunk):
            await stream.next()
        await stream.speak(noise_pcm(MONO_16K, 8_000, 2))
        await stream.end_audio()
        await stream.rest()
        padded = noise_pcm(MONO_16K, 8_000, 1).ljust(30_720, b"\0") + noise_pcm(MONO_16K, 8_000, 2).ljust(30_720, b"\0")
        assert b"".join(segment.pcm for segment in stream.segments) == padded
        assert stream.kinds.count("utterance_ended") == 1


# Metrics --------------------------------------------------------------------------------------------------------------


async def test_metrics_count_what_happened(redis_url: str) -> None:
    async with running_gateway(redis_url) as gateway, talking(gateway) as stream:
        await stream.speak(noise_pcm(MONO_16K, 2 * 15_360, 1))
        await stream.end_audio()
        await stream.rest()
        assert gateway.metric("visavis_time_to_first_frame_seconds_count", stage="gateway") == 1
        assert gateway.metric("visavis_time_to_first_frame_seconds_sum", stage="gateway") > 0
        assert gateway.metric("visavis_chunk_duration_seconds_count", stage="gateway") == 2
        for stage in ("audio_encoder", "generator", "decoder"):
            assert gateway.metric("visavis_gateway_stage_seconds_count", stage=stage) == 2
        assert gateway.metric("visavis_gateway_chunks_total", kind="speech") == 2
        assert gateway.metric("visavis_chunks_in_flight", stage="gateway") == 0
        assert gateway.metric("visavis_sessions_total", stage="gateway", code="OK") == 1


async def test_late_chunks_are_counted(redis_url: str) -> None:
    stages = one_of_each()
    stages[1].faults.turns = turns = asyncio.Semaphore(1)
    async with running_gateway(redis_url, stages, STAGE_STALL_SECONDS="60") as gateway, talking(gateway) as stream:
        await stream.speak(noise_pcm(MONO_16K, 3 * 15_360, 1))
        await stream.end_audio()
        for _ in range(2):
            while not (await stream.until("segment")).segment.last_in_chunk:
                pass
            await asyncio.sleep(1.2)
            turns.release()
        await stream.rest()
        assert gateway.metric("visavis_gateway_late_chunks_total") == 2
