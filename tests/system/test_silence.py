"""Silence and pauses: the face goes on living, yields to speech, and starves as it was told to."""

import asyncio
import statistics
import time
from itertools import groupby

from tests.system.parts import AT_ONCE_SECONDS, RATE_HZ, voice
from visavis.client import AudioFormat, Segment, SessionEnded, Starved, TalkSession, UtteranceEnded, VisavisClient
from visavis.contract import CHUNK_SECONDS

MONO = AudioFormat.s16(RATE_HZ)


async def test_idle_chunks_keep_coming_in_real_time(client: VisavisClient, avatar_id: str) -> None:
    begin, wanted = time.monotonic(), 5
    async with client.talk(avatar_id, audio_format=MONO, idle="live") as session:
        async for segment in session:
            assert segment.idle
            assert segment.utterance_id == 0
            assert not any(segment.pcm)
            # No sooner than one chunk before it is shown; how much later is the machine's affair.
            assert time.monotonic() - begin > (segment.chunk_index - 2) * CHUNK_SECONDS
            if segment.chunk_index == wanted:
                break


async def test_an_idle_chunk_yields_to_speech(client: VisavisClient, avatar_id: str) -> None:
    idle_between, waited = [], []
    async with client.talk(avatar_id, audio_format=MONO, idle="live") as session:
        events = session.events()
        for seed in range(3):  # a machine that is busy for a moment spoils one of them
            async for event in events:
                if isinstance(event, Segment) and event.idle:
                    last_seen = event.chunk_index
                    break
            await session.send(voice(1.2, seed=seed).pcm)
            await session.end_utterance()
            sent_at = time.monotonic()
            async for event in events:
                if isinstance(event, Segment) and not event.idle:
                    break
            assert isinstance(event, Segment)
            idle_between.append(event.chunk_index - 1 - last_seen)
            waited.append(time.monotonic() - sent_at)
    assert statistics.median(idle_between) <= 1  # one may have been under way
    assert statistics.median(waited) < AT_ONCE_SECONDS


async def test_speech_and_silence_form_one_timeline(client: VisavisClient, avatar_id: str) -> None:
    async with client.talk(avatar_id, audio_format=MONO, idle="live") as session:
        await session.send(voice(1.0).pcm)
        await session.end_utterance()
        segments: list[Segment] = []
        spoken = ended = False
        async for segment in session:
            segments.append(segment)
            spoken = spoken or not segment.idle
            if spoken and not ended and segment.idle and segment.last_in_chunk:
                await session.end()
                ended = True
    expected = 1
    for segment in segments:
        assert segment.first_frame_index == expected
        assert segment.audio_start_sample == (expected - 1) * 640
        expected += len(segment.frames)
    # A client that stands still for half a second before it speaks gets an idle chunk first.
    assert [idle for idle, _ in groupby(segment.idle for segment in segments)][-2:] == [False, True]
    assert len({segment.utterance_id for segment in segments if not segment.idle}) == 1


async def test_a_paused_session_sends_nothing_while_it_waits(client: VisavisClient, avatar_id: str) -> None:
    async with client.talk(avatar_id, audio_format=MONO, idle="pause") as session:
        reader = asyncio.ensure_future(anext(session.events()))
        done, _ = await asyncio.wait([reader], timeout=2.0)
        assert not done
        await session.send(voice(1.0).pcm)
        await session.end()
        assert isinstance(await reader, Segment)


async def starve(session: TalkSession, rest: bytes) -> list[object]:
    """Sends half a chunk, waits for the notice, then sends the rest, and collects everything."""
    await session.send(voice(0.5).pcm)
    collected: list[object] = []
    fed = False
    async for event in session.events():
        collected.append(event)
        if isinstance(event, Starved) and not fed:
            fed = True  # between the rest and the end it may starve again
            await asyncio.sleep(1.5)
            await session.send(rest)
            await session.end()
    return collected


async def test_starved_wait_holds_the_chunk_until_speech_comes(client: VisavisClient, avatar_id: str) -> None:
    rest = voice(0.6, seed=1).pcm
    async with client.talk(avatar_id, audio_format=MONO, idle="pause", starvation="wait") as session:
        events = await starve(session, rest)
    starved = [event for event in events if isinstance(event, Starved) and event.chunk_index == 1]
    assert starved == [Starved(utterance_id=1, chunk_index=1, filled=False)]
    segments = [event for event in events if isinstance(event, Segment)]
    assert events.index(starved[0]) < events.index(segments[0])
    assert b"".join(segment.pcm for segment in segments).startswith(voice(0.5).pcm + rest)


async def test_starved_fill_shows_silence_and_the_speech_follows(client: VisavisClient, avatar_id: str) -> None:
    rest = voice(0.6, seed=1).pcm
    async with client.talk(avatar_id, audio_format=MONO, idle="pause", starvation="fill") as session:
        events = await starve(session, rest)
    starved = [event for event in events if isinstance(event, Starved)]
    assert starved[0] == Starved(utterance_id=1, chunk_index=1, filled=True)
    sound = b"".join(event.pcm for event in events if isinstance(event, Segment))
    begin = voice(0.5).pcm
    assert sound.startswith(begin)
    silence = sound[len(begin) : 2 * 15_360]
    assert silence
    assert not any(silence)
    assert rest in sound[2 * 15_360 :]
    assert isinstance(events[-1], SessionEnded)
    assert any(isinstance(event, UtteranceEnded) for event in events)
