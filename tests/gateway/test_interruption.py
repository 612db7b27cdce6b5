"""An interruption: acknowledged at once, back to what was played, and new speech soon."""

from __future__ import annotations

import asyncio
import statistics

import pytest

from gateway.interruption import border_of_interruption
from tests.gateway.gateway_harness import one_of_each, running_gateway
from tests.gateway.recorded_talk import recorded_talk
from tests.gateway.strategies import noise_pcm
from tests.gateway.talk_client import LIVE, MONO_16K

CHUNK = 15_360
SPEECH = noise_pcm(MONO_16K, 8 * CHUNK, 1)
ANSWER = noise_pcm(MONO_16K, 2 * CHUNK, 2)


@pytest.mark.parametrize(
    ("played", "border"),
    [(None, 6), (0, 3), (3 * CHUNK, 3), (3 * CHUNK + 1, 4), (6 * CHUNK - 5, 6), (10**9, 6)],
    ids=["all", "nothing", "border", "behind it", "last", "more than sent"],
)
def test_the_chunk_that_was_playing_is_the_last_one(played: int | None, border: int) -> None:
    assert border_of_interruption(played, samples_per_chunk=CHUNK, last_written=6, oldest_border=3) == border


@pytest.mark.parametrize("played", [None, 0, CHUNK + 5, 3 * CHUNK, 10**6])
async def test_the_face_goes_on_from_what_was_played(redis_url: str, played: int | None) -> None:
    seen: dict[int, set[str]] = {}
    for keeps_borders in (0, 8):
        stages = one_of_each()
        for stage in stages:
            stage.faults.keeps_borders = keeps_borders
            stage.faults.chunk_seconds = 0.02
        async with running_gateway(redis_url, stages) as gateway, recorded_talk(gateway) as talk:
            await talk.speak(SPEECH)
            await talk.until_chunk(4)
            await talk.interrupt(played)
            interrupted = (await talk.until("interrupted")).interrupted
            written = max(segment.chunk_index for segment in talk.segments if segment.last_in_chunk)
            expected = {None: written, 0: 0, CHUNK + 5: 2, 3 * CHUNK: 3, 10**6: written}[played]
            assert (interrupted.epoch, interrupted.last_chunk_index) == (2, expected)
            await talk.speak(ANSWER)
            await talk.end_audio()
            await talk.finish()
            talk.check()
            after = [segment for segment in talk.segments if segment.epoch == 2]
            assert {segment.chunk_index for segment in after} == {expected + 1, expected + 2}
            assert {segment.utterance_id for segment in after} == {2}
            seen.setdefault(expected, set()).add(talk.pictures(epoch=2))
            assert not any(stage.sessions for stage in stages)
    assert all(len(pictures) == 1 for pictures in seen.values()), "a state kept is a state replayed"


async def test_interruptions_one_behind_the_other(redis_url: str) -> None:
    stages = one_of_each()
    stages[1].faults.chunk_seconds = 0.05
    async with running_gateway(redis_url, stages) as gateway, recorded_talk(gateway) as talk:
        await talk.speak(SPEECH)
        await talk.until_chunk(2)
        for played in (2 * CHUNK, CHUNK, None, 0):
            await talk.interrupt(played)
            await talk.speak(ANSWER[:200])
        await talk.end_audio()
        await talk.finish()
        talk.check()
        acknowledged = [r.interrupted for r in talk.history.received if r.HasField("interrupted")]
        assert [(each.epoch, each.last_chunk_index) for each in acknowledged] == [(2, 2), (3, 1), (4, 1), (5, 0)]


async def test_every_interruption_grows_the_epoch(redis_url: str) -> None:
    async with running_gateway(redis_url) as gateway, recorded_talk(gateway) as talk:
        for epoch in (2, 3, 4):
            await talk.interrupt()
            assert (await talk.until("interrupted")).interrupted.epoch == epoch
        await talk.end_audio()
        await talk.finish()
        talk.check()
        assert gateway.metric("visavis_gateway_interruption_seconds_count") == 3


async def test_a_live_face_shuts_its_mouth_and_lives_on(redis_url: str) -> None:
    stages = one_of_each()
    stages[1].faults.chunk_seconds = 0.1
    async with running_gateway(redis_url, stages) as gateway, recorded_talk(gateway, idle_behavior=LIVE) as talk:
        await talk.speak(SPEECH)
        # Seven chunks are nearly 7 s to show; they came in 1 s.
        await talk.until_chunk(7)
        await talk.interrupt(CHUNK // 2)
        await talk.until("interrupted")
        began = asyncio.get_running_loop().time()
        await talk.until("segment")
        assert asyncio.get_running_loop().time() - began < 4, "not when what was dropped would have been shown"
        assert talk.segments[-1].idle
        assert talk.segments[-1].chunk_index == 2
        await talk.end_audio()
        await talk.finish()
        talk.check()


async def test_an_interruption_is_read_behind_a_minute_of_speech(redis_url: str) -> None:
    stages = one_of_each()
    stages[1].faults.chunk_seconds = 3600
    async with (
        running_gateway(redis_url, stages, STAGE_STALL_SECONDS="3600") as gateway,
        recorded_talk(gateway) as talk,
    ):
        for _ in range(8):
            await talk.speak(SPEECH)
        assert len(talk.history.sent_pcm) / 32_000 > 60
        await talk.interrupt()
        await talk.until("interrupted")
        assert talk.segments == [], "not behind the first chunk of it"
        stages[1].faults.chunk_seconds = 0
        await talk.speak(ANSWER)
        await talk.end_audio()
        await talk.finish()
        talk.check()


async def test_how_soon(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Figures, asserted loosely: other work runs on the same processors."""
    computed = 0.1
    stages = one_of_each()
    for stage in stages:
        stage.faults.chunk_seconds = computed
    acknowledged, visible = [], []
    clock = asyncio.get_running_loop().time
    async with running_gateway(redis_url, stages) as gateway, recorded_talk(gateway, idle_behavior=LIVE) as talk:
        for _ in range(8):
            await talk.speak(SPEECH)
            await talk.until("segment")
            began = clock()
            await talk.interrupt(talk.segments[-1].audio_end_sample)
            await talk.until("interrupted")
            acknowledged.append(clock() - began)
            began = clock()
            await talk.speak(ANSWER)
            while (await talk.until("segment")).segment.idle:
                pass
            visible.append(clock() - began)
        await talk.end_audio()
        await talk.finish()
        talk.check()
    with capsys.disabled():
        print(
            f"\ninterruption acknowledged: median {1e3 * statistics.median(acknowledged):.1f} ms,"
            f" worst {1e3 * max(acknowledged):.1f} ms; new speech visible: median {statistics.median(visible):.2f} s,"
            f" worst {max(visible):.2f} s (a stage computes {computed} s a chunk)"
        )
    assert statistics.median(acknowledged) < 0.1
    assert statistics.median(visible) < 0.96 + 3 * computed + 0.5


async def test_how_far_back_a_long_session_can_go(redis_url: str) -> None:
    async with running_gateway(redis_url) as gateway, recorded_talk(gateway) as talk:
        await talk.speak(SPEECH * 3)
        await talk.until_chunk(20)
        await talk.interrupt(0)
        border = (await talk.until("interrupted")).interrupted.last_chunk_index
        written = max(segment.chunk_index for segment in talk.segments if segment.last_in_chunk)
        assert written - 12 < border <= written - 6
        await talk.speak(ANSWER)
        await talk.end_audio()
        await talk.finish()
        talk.check()
