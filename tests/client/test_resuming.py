"""Sessions whose streams break, against a server that resumes them, behind real gRPC."""

import asyncio
import random

import pytest

from tests.client.breaking_server import BreakingService
from tests.client.fake_server import serve_fake
from visavis.client import (
    AudioFormat,
    Event,
    Interrupted,
    Resumed,
    Segment,
    ServerUnavailable,
    SessionEnded,
    UtteranceEnded,
    VideoFormat,
    VisavisClient,
)
from visavis.contract import CHUNK_FRAMES, CHUNK_SAMPLES

MONO = AudioFormat.s16(16_000)
RAW = VideoFormat.raw()
CHUNK_BYTES = 2 * CHUNK_SAMPLES


def noise(rng: random.Random, samples: int) -> bytes:
    """Speech of which no two chunks are alike."""
    return rng.randbytes(2 * samples)


async def talk(service: BreakingService, utterances: list[list[bytes]], *addresses: str) -> list[Event]:
    """Everything that a session receives which speaks these utterances, each given in packets."""
    async with (
        serve_fake(service) as address,
        VisavisClient([*addresses, address]) as client,
        client.talk("known", audio_format=MONO, video_format=RAW) as session,
    ):

        async def speak() -> None:
            for packets in utterances:
                for packet in packets:
                    await session.send(packet)
                    await asyncio.sleep(0)
                await session.end_utterance()
            await session.end()

        speaking = asyncio.create_task(speak())
        events = [event async for event in session.events()]
        await speaking
    return events


def check(events: list[Event], utterances: list[list[bytes]]) -> None:
    """Every frame once and in order, with exactly the sound that was sent; every utterance ended once and in order."""
    segments = [event for event in events if isinstance(event, Segment)]
    expected_frame = 1
    for segment in segments:
        assert segment.first_frame_index == expected_frame
        expected_frame += len(segment.frames)
    padded = [b"".join(packets) for packets in utterances]
    padded = [speech + bytes(-len(speech) % CHUNK_BYTES) for speech in padded]
    assert b"".join(segment.pcm for segment in segments) == b"".join(padded)
    ended = [event.utterance_id for event in events if isinstance(event, UtteranceEnded)]
    assert ended == [index + 1 for index, speech in enumerate(padded) if speech]
    assert isinstance(events[-1], SessionEnded)


@pytest.mark.parametrize("seed", range(25))
async def test_wherever_a_stream_breaks_nothing_is_lost_or_doubled(seed: int) -> None:
    rng = random.Random(seed)
    utterances = [
        [noise(rng, rng.choice([1, 700, 9_000, CHUNK_SAMPLES, 20_000])) for _ in range(rng.randint(1, 4))]
        for _ in range(rng.randint(1, 3))
    ]
    service = BreakingService([rng.randint(0, 5) for _ in range(rng.randint(1, 4))])
    check(await talk(service, utterances), utterances)


async def test_a_break_is_told_and_the_session_goes_on_behind_the_last_frame() -> None:
    utterances = [[noise(random.Random(1), 2 * CHUNK_SAMPLES)]]
    service = BreakingService([1])
    events = await talk(service, utterances)
    assert [event for event in events if isinstance(event, Resumed)] == [Resumed(1, CHUNK_FRAMES // 2 + 1)]
    assert service.streams == 2


async def test_a_refused_resumption_is_tried_again() -> None:
    utterances = [[noise(random.Random(2), CHUNK_SAMPLES)]]
    service = BreakingService([1], refusals=3)
    check(await talk(service, utterances), utterances)


async def test_another_gateway_is_tried_where_one_cannot_be_reached() -> None:
    utterances = [[noise(random.Random(3), CHUNK_SAMPLES)]]
    check(await talk(BreakingService([1]), utterances, "127.0.0.1:1"), utterances)


async def test_a_full_gateway_is_left_for_the_next_at_once() -> None:
    """Waiting as long as the full one asks would take longer than the session can be resumed."""
    utterances = [[noise(random.Random(7), CHUNK_SAMPLES)]]
    service = BreakingService([1], refusals=1, full=True)
    async with serve_fake(service) as other:
        check(await talk(service, utterances, other), utterances)


async def test_a_session_that_is_gone_raises_what_broke_it() -> None:
    with pytest.raises(ServerUnavailable, match="on purpose") as caught:
        await talk(BreakingService([1], forgets=True), [[noise(random.Random(4), CHUNK_SAMPLES)]])
    assert any("no such session" in note for note in caught.value.__notes__)


async def test_a_server_that_never_comes_back_is_given_up_after_its_window() -> None:
    service = BreakingService([1], refusals=1_000_000, window_seconds=1)
    async with asyncio.timeout(60):
        with pytest.raises(ServerUnavailable, match="on purpose"):
            await talk(service, [[noise(random.Random(5), CHUNK_SAMPLES)]])


@pytest.mark.parametrize("responses", [1, 2, 3])
async def test_an_interruption_around_a_break_drops_the_old_speech_only(responses: int) -> None:
    """One chunk (two segments), `interrupted`, then the new speech; the break comes before, at and behind it."""
    rng = random.Random(6)
    old, new = noise(rng, CHUNK_SAMPLES + 500), noise(rng, CHUNK_SAMPLES)
    async with (
        serve_fake(BreakingService([responses])) as address,
        VisavisClient(address) as client,
        client.talk("known", audio_format=MONO, video_format=RAW) as session,
    ):
        await session.send(old)
        await session.interrupt()
        await session.send(new)
        await session.end_utterance()
        await session.end()
        events = [event async for event in session.events()]
    assert [event.epoch for event in events if isinstance(event, Interrupted)] == [2]
    by_epoch = {
        epoch: b"".join(event.pcm for event in events if isinstance(event, Segment) and event.epoch == epoch)
        for epoch in (1, 2)
    }
    assert by_epoch == {1: old[:CHUNK_BYTES], 2: new}
    assert [event.utterance_id for event in events if isinstance(event, UtteranceEnded)] == [2]
