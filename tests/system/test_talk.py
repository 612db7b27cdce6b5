"""The main job: speech and a portrait in, a talking video out."""

import asyncio
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from tests.system.parts import AT_ONCE_SECONDS, CHUNK, RATE_HZ, voice
from visavis.client import (
    AudioFormat,
    Interrupted,
    Segment,
    Speech,
    UtteranceEnded,
    VideoFormat,
    VisavisClient,
    paced_packets,
)


async def render(
    client: VisavisClient,
    avatar_id: str,
    speech: Speech,
    *,
    seed: int,
    video_format: VideoFormat | None = None,
    packet_seconds: float = 0.04,
) -> tuple[npt.NDArray[np.uint8], list[Segment]]:
    """All frames of a clip, and its segments."""
    talk = client.talk(
        avatar_id,
        audio_format=speech.audio_format,
        video_format=video_format or VideoFormat.raw(),
        seed=seed,
        idle="pause",
        starvation="wait",
    )
    async with talk as session:
        session.send_in_background(paced_packets(speech, packet_seconds=packet_seconds, fast=True))
        pictures, segments = [], []
        async for segment in session:
            pictures.append(session.pictures(segment))
            segments.append(segment)
    return np.concatenate(pictures), segments


def brightness(pictures_FHWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Of blocks of 4 x 4 pixels: what codecs keep even of noise."""
    frames, height, width, _ = pictures_FHWC.shape
    blocks = pictures_FHWC.reshape(frames, height // 4, 4, width // 4, 4, 3)
    means: npt.NDArray[np.float64] = blocks.mean(axis=(2, 4, 5)).ravel()
    return means


async def test_frames_and_their_audio_come_back_without_a_gap(client: VisavisClient, avatar_id: str) -> None:
    speech = voice(2.5)
    pictures, segments = await render(client, avatar_id, speech, seed=1)
    assert pictures.shape == (72, 64, 64, 3)
    assert all(segment.synthetic and not segment.idle for segment in segments)
    assert segments[0].first_frame_index == 1
    assert segments[0].audio_start_sample == 0
    for before, after in pairwise(segments):
        assert after.first_frame_index == before.first_frame_index + len(before.frames)
        assert after.audio_start_sample == before.audio_end_sample
    sound = b"".join(segment.pcm for segment in segments)
    assert sound[: len(speech.pcm)] == speech.pcm
    assert not any(sound[len(speech.pcm) :])
    assert len(sound) == 3 * CHUNK * 2


@pytest.mark.parametrize(
    "audio_format",
    [AudioFormat.s16(8_000), AudioFormat.f32(44_100, 2), AudioFormat.s16(22_050), AudioFormat.f32(96_000)],
)
async def test_any_allowed_format_comes_back_bit_for_bit(
    client: VisavisClient, avatar_id: str, audio_format: AudioFormat
) -> None:
    samples = voice(1.0, rate_hz=audio_format.sample_rate_hz).samples_SC.repeat(audio_format.channel_count, axis=1)
    scale = 1 if audio_format.sample_type == np.int16 else 32768
    pcm = (samples / scale).astype(audio_format.sample_type).tobytes()
    async with client.talk(avatar_id, audio_format=audio_format, idle="pause") as session:
        await session.send(pcm)
        await session.end()
        sound = b"".join([segment.pcm async for segment in session])
    assert sound[: len(pcm)] == pcm
    assert len(sound) == 48 * audio_format.samples_per_frame * audio_format.bytes_per_sample


async def test_same_seed_and_speech_give_the_same_frames(client: VisavisClient, avatar_id: str) -> None:
    speech = voice(2.0)
    first, _ = await render(client, avatar_id, speech, seed=5)
    again, _ = await render(client, avatar_id, speech, seed=5, packet_seconds=0.1)
    other_seed, _ = await render(client, avatar_id, speech, seed=6)
    other_speech, _ = await render(client, avatar_id, voice(2.0, seed=9), seed=5)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other_seed)
    assert not np.array_equal(first, other_speech)


async def test_codecs_show_the_same_pictures(client: VisavisClient, avatar_id: str) -> None:
    speech = voice(1.0)
    raw, _ = await render(client, avatar_id, speech, seed=2)
    for video_format in (VideoFormat.jpeg(95), VideoFormat.h264()):
        pictures, segments = await render(client, avatar_id, speech, seed=2, video_format=video_format)
        assert pictures.shape == raw.shape
        assert np.corrcoef(brightness(pictures), brightness(raw))[0, 1] > 0.9
        assert segments[0].frames[0].key_frame


async def test_every_stage_says_how_long_it_took(client: VisavisClient, avatar_id: str) -> None:
    _, segments = await render(client, avatar_id, voice(1.5), seed=1)
    timings = [segment.timing for segment in segments if segment.last_in_chunk]
    assert len(timings) == 2
    for timing in timings:
        assert timing is not None
        for stage in (timing.audio_encoder, timing.generator, timing.decoder):
            assert 0 < stage.computed_seconds < AT_ONCE_SECONDS
        assert timing.total_seconds > timing.generator.computed_seconds


async def test_two_utterances_begin_at_chunk_borders(client: VisavisClient, avatar_id: str) -> None:
    async with client.talk(avatar_id, audio_format=AudioFormat.s16(RATE_HZ), idle="pause") as session:
        await session.send(voice(0.5).pcm)
        await session.end_utterance()
        await session.send(voice(1.2, seed=1).pcm)
        await session.end_utterance()
        await session.end()
        events = [event async for event in session.events()]
    segments = [event for event in events if isinstance(event, Segment)]
    utterance_of_chunk = {segment.chunk_index: segment.utterance_id for segment in segments}
    assert utterance_of_chunk == {1: 1, 2: 2, 3: 2}
    assert [event for event in events if isinstance(event, UtteranceEnded)] == [
        UtteranceEnded(1, 1),
        UtteranceEnded(2, 3),
    ]
    assert session.ended is not None
    assert (session.ended.chunks, session.ended.frames) == (3, 72)


async def test_nothing_of_an_old_epoch_follows_an_interruption(client: VisavisClient, avatar_id: str) -> None:
    mono, raw = AudioFormat.s16(RATE_HZ), VideoFormat.raw()
    async with client.talk(avatar_id, audio_format=mono, video_format=raw, idle="pause") as session:
        await session.send(voice(30.0).pcm)
        events = session.events()
        first = await anext(events)
        assert isinstance(first, Segment)
        await session.interrupt(first.audio_end_sample)
        await session.send(voice(0.5, seed=3).pcm)
        await session.end()
        rest = [event async for event in events]
    border = next(index for index, event in enumerate(rest) if isinstance(event, Interrupted))
    before = [event for event in rest[:border] if isinstance(event, Segment)]
    after = [event for event in rest[border + 1 :] if isinstance(event, Segment)]
    assert all(segment.epoch == 1 for segment in before)
    assert after
    assert all(segment.epoch == 2 for segment in after)
    assert {segment.utterance_id for segment in after} == {2}
    # What was not read when it was sent is a few chunks: no more raw pictures fit into the stream.
    assert len({segment.chunk_index for segment in before}) < 30
    assert b"".join(segment.pcm for segment in after).startswith(voice(0.5, seed=3).pcm)


async def test_two_sessions_at_once_do_not_mix(client: VisavisClient, avatar_id: str) -> None:
    speech, other = voice(3.0, seed=1), voice(3.0, seed=2)
    alone, _ = await render(client, avatar_id, speech, seed=4)
    (together, segments), _ = await asyncio.gather(
        render(client, avatar_id, speech, seed=4), render(client, avatar_id, other, seed=4)
    )
    assert b"".join(segment.pcm for segment in segments).startswith(speech.pcm)
    # Another row count may round differently; another session's speech would change every picture.
    assert np.abs(alone.astype(int) - together).mean() < 2


async def test_an_idle_session_that_ends_without_speech_has_no_frames(client: VisavisClient, avatar_id: str) -> None:
    async with client.talk(avatar_id, audio_format=AudioFormat.s16(RATE_HZ), idle="pause") as session:
        await session.end()
        assert [segment async for segment in session] == []
    assert session.ended is not None
    assert session.ended.frames == 0
