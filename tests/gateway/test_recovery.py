"""Stages that die, hang or drain in the middle of a session: the client notices nothing, and gets the same pictures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.gateway.gateway_harness import GatewayUnderTest, add_stage, one_of_each, running_gateway
from tests.gateway.recorded_talk import RecordedTalk, recorded_talk, undisturbed_pictures
from tests.gateway.stage_servers import (
    AudioEncoderServer,
    DecoderServer,
    Faults,
    GeneratorServer,
    StageServer,
)
from tests.gateway.stalled_streams import NEVER, StalledStreams
from tests.gateway.strategies import noise_pcm
from tests.gateway.talk_client import LIVE, MONO_16K, eventually
from visavis.runtime.errors import StageUnavailable

SPEECH = noise_pcm(MONO_16K, 7 * 15_360, 1)
STAGES = ["audio_encoder", "generator", "decoder"]
SERVERS: list[Callable[..., StageServer]] = [AudioEncoderServer, GeneratorServer, DecoderServer]
PATIENT = {"RECOVERY_SECONDS": "60"}


def with_spare(number: int, **faults: object) -> tuple[list[StageServer], StageServer, StageServer]:
    """Stages with two instances of one; the first is tried first and has the faults."""
    stages = one_of_each()
    bad = SERVERS[number](instance_id="0", faults=Faults(**faults))  # type: ignore[arg-type]
    good = SERVERS[number](instance_id="1")
    stages[number : number + 1] = [bad, good]
    return stages, bad, good


async def say(talk: RecordedTalk, pcm: bytes = SPEECH) -> None:
    await talk.speak(pcm)
    await talk.end_audio()
    await talk.finish()
    talk.check()


async def nothing_is_held(gateway: GatewayUnderTest) -> None:
    await eventually(lambda: not any(stage.sessions for stage in gateway.stages))
    assert gateway.runtime.slots.used_slots == 0
    assert gateway.metric("visavis_chunks_in_flight", stage="gateway") == 0
    assert await gateway.redis.keys("visavis:*:lease") == []
    for hop in [*STAGES, "client"]:
        assert gateway.metric("visavis_gateway_hop_depth", hop=hop) == 0


@pytest.mark.parametrize("chunk", [1, 2, 5, 7])
@pytest.mark.parametrize("fault", ["dies", "hangs", "closes", "skips"])
@pytest.mark.parametrize("number", range(3), ids=STAGES)
async def test_a_lost_stage_is_replaced_and_nobody_sees_it(
    redis_url: str, streams: StalledStreams, number: int, fault: str, chunk: int
) -> None:
    stages, bad, good = with_spare(number)
    async with running_gateway(redis_url, stages, **PATIENT, **NEVER) as gateway:
        wanted = await undisturbed_pictures(gateway, SPEECH)
        setattr(bad.faults, f"{fault}_at_chunk", chunk)
        async with recorded_talk(gateway) as talk, asyncio.TaskGroup() as group:
            if fault == "hangs":
                group.create_task(streams.stall(bad))
            await say(talk)
            assert talk.pictures() == wanted
        assert good.configs[-1].HasField("resume")
        assert gateway.metric("visavis_gateway_recoveries_total", stage=STAGES[number], kind="rebuilt") == 1
        await nothing_is_held(gateway)


@pytest.mark.parametrize("answers", [1, 2, 3])
@pytest.mark.parametrize("fault", ["dies", "hangs", "closes"])
async def test_a_decoder_lost_between_pictures_of_a_chunk(
    redis_url: str, streams: StalledStreams, fault: str, answers: int
) -> None:
    stages, bad, good = with_spare(2)
    async with running_gateway(redis_url, stages, **PATIENT, **NEVER) as gateway:
        wanted = await undisturbed_pictures(gateway, SPEECH)
        setattr(bad.faults, f"{fault}_at_chunk", 3)
        bad.faults.answers_before_fault = answers
        async with recorded_talk(gateway) as talk:
            await talk.speak(SPEECH)
            await talk.end_audio()
            if fault == "hangs":
                while sum(segment.chunk_index == 3 for segment in talk.segments) < answers:
                    await talk.next()
                await streams.stall(bad)
            await talk.finish()
            talk.check()
            assert talk.pictures() == wanted
        # A stage that has answered everything owes nothing, so a hanging one is found at the next chunk.
        assert good.configs[-1].resume.skip_frames == {1: 10, 2: 20, 3: 0}[answers]


@pytest.mark.parametrize("number", range(2), ids=STAGES[:2])
async def test_a_stage_lost_right_behind_its_answer(redis_url: str, number: int) -> None:
    stages, bad, _ = with_spare(number)
    async with running_gateway(redis_url, stages, **PATIENT) as gateway:
        wanted = await undisturbed_pictures(gateway, SPEECH)
        bad.faults.dies_at_chunk, bad.faults.answers_before_fault = 4, 1
        async with recorded_talk(gateway) as talk:
            await say(talk)
            assert talk.pictures() == wanted


async def test_all_three_stages_lost_at_once(redis_url: str) -> None:
    stages = [SERVERS[number](instance_id=str(instance)) for number in range(3) for instance in range(2)]
    async with running_gateway(redis_url, stages, **PATIENT) as gateway:
        wanted = await undisturbed_pictures(gateway, SPEECH)
        for stage in stages:
            stage.faults.chunk_seconds = 0.05
        async with recorded_talk(gateway) as talk:
            await talk.speak(SPEECH)
            await talk.until_chunk(2)
            await asyncio.gather(*(stage.stop() for stage in stages[::2]))
            await talk.end_audio()
            await talk.finish()
            talk.check()
            assert talk.pictures() == wanted


@pytest.mark.parametrize("number", range(3), ids=STAGES)
async def test_a_stage_that_comes_back_in_time_is_used_again(redis_url: str, number: int) -> None:
    stages = one_of_each()
    async with running_gateway(redis_url, stages, **PATIENT) as gateway:
        wanted = await undisturbed_pictures(gateway, SPEECH)
        stages[1].faults.chunk_seconds = 0.05
        async with recorded_talk(gateway) as talk:
            await talk.speak(SPEECH)
            await talk.until_chunk(2)
            await stages[number].stop()
            await asyncio.sleep(0.5)
            await add_stage(revived := SERVERS[number](instance_id="revived"), gateway.runtime)
            await talk.end_audio()
            await talk.finish()
            talk.check()
            assert talk.pictures() == wanted
            assert revived.configs
            await revived.stop()


async def test_without_another_instance_the_client_is_told_in_time_and_can_resume(redis_url: str) -> None:
    stages = one_of_each()
    async with running_gateway(redis_url, stages, RECOVERY_SECONDS="0.5") as gateway:
        wanted = await undisturbed_pictures(gateway, SPEECH)
        stages[1].faults.chunk_seconds = 0.05
        async with recorded_talk(gateway) as talk:
            await talk.speak(SPEECH)
            await talk.until_chunk(2)
            await stages[1].stop()
            began = asyncio.get_running_loop().time()
            error = await talk.stream.failure()
            assert isinstance(error, StageUnavailable)
            assert error.message == "the stage generator failed; resume the session"
            assert asyncio.get_running_loop().time() - began < 15, "not after the time that is usual"
            assert gateway.metric("visavis_gateway_recoveries_total", stage="generator", kind="failed") == 1
            for response in talk.stream.received[len(talk.history.received) :]:
                if talk.progress.accept(response):
                    talk.history.receive(response)
            await add_stage(revived := GeneratorServer(), gateway.runtime)
            await talk.resume()
            await talk.end_audio()
            await talk.finish()
            talk.check()
            assert talk.pictures() == wanted
            await revived.stop()


async def test_a_chunk_that_kills_every_instance_ends_the_session(redis_url: str) -> None:
    stages = one_of_each()
    stages[1:2] = [GeneratorServer(faults=Faults(dies_at_chunk=2)) for _ in range(8)]
    async with running_gateway(redis_url, stages) as gateway, recorded_talk(gateway) as talk:
        await talk.speak(SPEECH)
        assert isinstance(await talk.stream.failure(), StageUnavailable)
        assert sum(len(stage.configs) for stage in stages[1:9]) == 5


async def test_one_session_that_recovers_leaves_the_others_alone(redis_url: str) -> None:
    stages, bad, _ = with_spare(1)
    async with (
        running_gateway(redis_url, stages, **PATIENT) as gateway,
        recorded_talk(gateway) as one,
        recorded_talk(gateway) as two,
    ):
        bad.faults.dies_at_chunk = 3
        await asyncio.gather(say(one), say(two))
        assert one.pictures() == two.pictures()


@pytest.mark.parametrize("number", range(3), ids=STAGES)
async def test_a_lost_stage_of_a_silent_session_is_replaced_at_once(redis_url: str, number: int) -> None:
    stages, bad, good = with_spare(number)
    async with running_gateway(redis_url, stages, **PATIENT) as gateway, recorded_talk(gateway) as talk:
        await bad.stop()
        await eventually(lambda: good.configs)
        await say(talk)


# An interruption beside it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(3), ids=STAGES)
async def test_an_interruption_while_a_stage_recovers(
    redis_url: str, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    stages, bad, good = with_spare(number)
    answer = noise_pcm(MONO_16K, 2 * 15_360, 2)
    async with running_gateway(redis_url, stages, **PATIENT) as gateway, recorded_talk(gateway) as talk:
        good.faults.full = True
        await talk.speak(SPEECH)
        await talk.until_chunk(1)
        await bad.stop()
        await eventually(lambda: "stage failed" in caplog.messages)
        await talk.interrupt(15_360)
        assert (await talk.until("interrupted")).interrupted.last_chunk_index == 1
        good.faults.full = False
        await talk.speak(answer)
        await talk.end_audio()
        await talk.finish()
        talk.check()
        interrupted = talk.pictures(epoch=2)
    healthy = one_of_each()
    async with running_gateway(redis_url, healthy) as gateway, recorded_talk(gateway) as talk:
        await talk.speak(SPEECH)
        await talk.until_chunk(1)
        await talk.interrupt(15_360)
        await talk.speak(answer)
        await talk.end_audio()
        await talk.finish()
        assert talk.pictures(epoch=2) == interrupted


# Draining -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transfer", [True, False], ids=["exact", "rebuilt"])
@pytest.mark.parametrize("number", range(3), ids=STAGES)
async def test_a_draining_instance_is_left_without_a_trace(redis_url: str, number: int, transfer: bool) -> None:
    stages, leaving, other = with_spare(number)
    async with running_gateway(redis_url, stages, **PATIENT) as gateway:
        wanted = await undisturbed_pictures(gateway, SPEECH)
        for stage in stages:
            stage.faults.chunk_seconds = 0.05
        leaving.faults.refuses_transfer = not transfer
        async with recorded_talk(gateway) as talk:
            await talk.speak(SPEECH)
            await talk.until_chunk(2)
            await leaving.drain(gateway.registry)
            await eventually(lambda: other.sessions and not leaving.sessions)
            await talk.end_audio()
            await talk.finish()
            talk.check()
            assert talk.pictures() == wanted
        exact = number == 1 and transfer
        kind = "exact" if exact else "rebuilt"
        assert gateway.metric("visavis_gateway_hand_overs_total", stage=STAGES[number], kind=kind) == 1
        assert not any(gateway.metric("visavis_gateway_recoveries_total", stage=s, kind="rebuilt") for s in STAGES)
        await nothing_is_held(gateway)


@pytest.mark.parametrize("number", range(3), ids=STAGES)
async def test_a_draining_instance_serves_on_until_there_is_another(redis_url: str, number: int) -> None:
    stages = one_of_each()
    async with running_gateway(redis_url, stages, **PATIENT) as gateway:
        wanted = await undisturbed_pictures(gateway, SPEECH)
        for stage in stages:
            stage.faults.chunk_seconds = 0.1
        async with recorded_talk(gateway) as talk:
            await stages[number].drain(gateway.registry)
            await talk.speak(SPEECH)
            await talk.until_chunk(3)
            await add_stage(other := SERVERS[number](instance_id="other"), gateway.runtime)
            await eventually(lambda: other.sessions)
            await talk.end_audio()
            await talk.finish()
            talk.check()
            assert talk.pictures() == wanted
            await other.stop()
        kind = "exact" if number == 1 else "rebuilt"
        assert gateway.metric("visavis_gateway_hand_overs_total", stage=STAGES[number], kind=kind) == 1
        assert gateway.metric("visavis_gateway_hand_overs_total", stage=STAGES[number], kind="failed") == 0


@pytest.mark.parametrize("number", range(3), ids=STAGES)
async def test_a_drain_that_ends_too_early_has_failed_once(
    redis_url: str, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    stages = one_of_each()
    async with running_gateway(redis_url, stages, **PATIENT) as gateway:
        wanted = await undisturbed_pictures(gateway, SPEECH)
        async with recorded_talk(gateway) as talk:
            await stages[number].drain(gateway.registry)
            await eventually(lambda: caplog.messages.count("the session could not be moved") >= 3)
            await stages[number].stop()
            await eventually(lambda: "stage failed" in caplog.messages)
            await add_stage(other := SERVERS[number](instance_id="other"), gateway.runtime)
            await say(talk)
            assert talk.pictures() == wanted
            await other.stop()
        assert gateway.metric("visavis_gateway_hand_overs_total", stage=STAGES[number], kind="failed") == 1
        assert gateway.metric("visavis_gateway_recoveries_total", stage=STAGES[number], kind="rebuilt") == 1


async def test_a_silent_session_is_moved_too(redis_url: str) -> None:
    stages, leaving, other = with_spare(1)
    async with running_gateway(redis_url, stages, **PATIENT) as gateway, recorded_talk(gateway) as talk:
        await leaving.drain(gateway.registry)
        await eventually(lambda: other.sessions and not leaving.sessions)
        await say(talk)


async def test_a_live_session_lives_through_everything(redis_url: str) -> None:
    """Drains and losses in turn, with speech and interruptions between them."""
    stages = [SERVERS[number](instance_id=f"{instance}") for number in range(3) for instance in range(2)]
    async with (
        running_gateway(redis_url, stages, **PATIENT) as gateway,
        recorded_talk(gateway, idle_behavior=LIVE) as talk,
    ):
        added: list[StageServer] = []
        for number in range(3):
            await talk.speak(noise_pcm(MONO_16K, 20_000, number))
            await talk.end_utterance()
            await talk.until("utterance_ended")
            serving = next(stage for stage in [*stages, *added] if stage.stage == STAGES[number] and stage.sessions)
            await (serving.drain(gateway.registry) if number == 1 else serving.stop())
            await add_stage(new := SERVERS[number](instance_id=f"new {number}"), gateway.runtime)
            added.append(new)
            await talk.interrupt()
            await talk.until("interrupted")
        await talk.end_audio()
        await talk.finish()
        talk.check()
        for stage in added:
            await stage.stop()
