"""Clients that lose their stream and come back, to this gateway or another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.resume_token import ResumeToken
from tests.gateway.gateway_harness import GatewayUnderTest, one_of_each, running_gateway
from tests.gateway.recorded_talk import RecordedTalk, gone, recorded_talk, undisturbed_pictures
from tests.gateway.stage_servers import GeneratorServer, StageServer
from tests.gateway.strategies import noise_pcm
from tests.gateway.talk_client import LIMIT_SECONDS, LIVE, MONO_16K, TalkStream, eventually, open_stream
from visavis.runtime.errors import CapacityExhausted, Draining, InvalidInput, LeaseLost, NotFound, VisavisError
from visavis.v1 import talking_head_pb2
from visavis.v1.talking_head_pb2 import InputPosition, Interrupt, ResumeSession, TalkRequest

CHUNK = 15_360
SPEECH = noise_pcm(MONO_16K, 7 * CHUNK, 1)
FILL = talking_head_pb2.STARVATION_POLICY_FILL
SLOW = {"CHECKPOINT_CHUNKS": "2"}


@asynccontextmanager
async def two_gateways(
    redis_url: str, stages: list[StageServer] | None = None, **variables: str
) -> AsyncIterator[tuple[GatewayUnderTest, GatewayUnderTest]]:
    """In front of the same stages."""
    settings = {**SLOW, **variables}
    async with (
        running_gateway(redis_url, stages, **settings) as one,
        running_gateway(redis_url, [], **settings) as two,
    ):
        yield one, two


def paced_stages(seconds: float = 0.05) -> list[StageServer]:
    stages = one_of_each()
    for stage in stages:
        stage.faults.chunk_seconds = seconds
    return stages


async def break_and_resume(talk: RecordedTalk, gateway: GatewayUnderTest, *, settle: bool = True) -> None:
    """settle: waits until the old gateway has let go."""
    old = talk.gateway
    talk.break_off()
    if settle:
        await eventually(lambda: old.runtime.slots.used_slots == 0)
    await talk.resume(gateway)


@pytest.mark.parametrize("settle", [True, False], ids=["later", "at once"])
@pytest.mark.parametrize("other", [False, True], ids=["same gateway", "another"])
@pytest.mark.parametrize("complete", [True, False], ids=["whole", "in part"])
async def test_a_resumed_session_loses_and_repeats_nothing(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, complete: bool, other: bool, settle: bool
) -> None:
    # However long it takes here until the old gateway has written down where it left.
    monkeypatch.setattr("gateway.sessions._LEAVING_SECONDS", LIMIT_SECONDS)
    stages = paced_stages()
    async with two_gateways(redis_url, stages) as (one, two):
        wanted = await undisturbed_pictures(one, SPEECH)
        async with recorded_talk(one) as talk:
            await talk.speak(SPEECH)
            for chunk_index in (1, 3, 6):
                await talk.until_chunk(chunk_index, complete=complete)
                target = two if other and talk.gateway is one else one
                await break_and_resume(talk, target, settle=settle)
            await talk.end_audio()
            await talk.finish()
            talk.check()
            assert talk.pictures() == wanted, "the last checkpoint is exactly what the client has"
            ended = talk.history.received[-1].ended
            assert (ended.chunks, ended.frames) == (7, 168)
        await eventually(lambda: not any(stage.sessions for stage in stages))
        assert one.runtime.slots.used_slots == two.runtime.slots.used_slots == 0
        assert one.metric("visavis_gateway_resumed_sessions_total", result="resumed") > 0


async def test_before_the_first_chunk(redis_url: str) -> None:
    async with two_gateways(redis_url, paced_stages()) as (one, two), recorded_talk(one) as talk:
        await talk.speak(SPEECH)
        await break_and_resume(talk, two)
        await talk.end_audio()
        await talk.finish()
        talk.check()


async def test_behind_the_last_chunk_the_end_is_given_again(redis_url: str) -> None:
    async with two_gateways(redis_url, paced_stages()) as (one, two):
        for complete in (True, False):
            async with recorded_talk(one) as talk:
                await talk.speak(SPEECH)
                await talk.end_audio()
                await talk.until_chunk(7, complete=complete)
                await eventually(lambda: one.runtime.slots.used_slots == 0)
                await talk.resume(two)
                await talk.finish()
                talk.check()


async def test_in_the_middle_of_idle_chunks(redis_url: str) -> None:
    async with two_gateways(redis_url, paced_stages(), IDLE_START_SECONDS="60") as (one, two):
        for complete in (True, False):
            async with recorded_talk(one, idle_behavior=LIVE) as talk:
                await talk.speak(SPEECH[: 2 * CHUNK])
                await talk.end_utterance()
                await talk.until_chunk(2, complete=complete)
                assert talk.segments[-1].idle
                await break_and_resume(talk, two)
                await talk.speak(SPEECH[: 2 * CHUNK])
                await talk.end_audio()
                await talk.finish()
                talk.check()


@pytest.mark.parametrize("complete", [True, False], ids=["whole", "in part"])
async def test_behind_a_chunk_that_was_filled_with_silence(redis_url: str, complete: bool) -> None:
    async with (
        two_gateways(redis_url, paced_stages()) as (one, two),
        recorded_talk(one, starvation_policy=FILL) as talk,
    ):
        await talk.speak(SPEECH[:20_000])
        await talk.until_chunk(1, complete=complete)
        await talk.speak(SPEECH[20_000 : 20_000 + 2 * CHUNK])
        await break_and_resume(talk, two)
        await talk.end_audio()
        await talk.finish()
        talk.check()


async def test_an_end_that_was_not_heard_is_heard_again(redis_url: str) -> None:
    async with two_gateways(redis_url, paced_stages()) as (one, two), recorded_talk(one) as talk:
        await talk.speak(SPEECH[: 2 * CHUNK + 2 * 1_280])
        await talk.until_chunk(1)
        await talk.end_utterance()
        await break_and_resume(talk, two)
        ended = (await talk.until("utterance_ended")).utterance_ended
        assert (ended.utterance_id, ended.last_chunk_index) == (1, 2)
        await talk.speak(SPEECH)
        await talk.end_audio()
        await talk.finish()
        talk.check()
        assert talk.segments[-1].utterance_id == 2


# Interruptions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heard", ["nothing", "the gateway", "acknowledged"])
async def test_in_the_middle_of_an_interruption(redis_url: str, heard: str) -> None:
    answer = noise_pcm(MONO_16K, 2 * CHUNK, 2)
    async with two_gateways(redis_url, paced_stages()) as (one, two), recorded_talk(one) as talk:
        await talk.speak(SPEECH)
        await talk.until_chunk(3)
        if heard == "nothing":
            talk.break_off()
            await eventually(lambda: one.runtime.slots.used_slots == 0)
            talk.history.send(interrupt := TalkRequest(interrupt=Interrupt(played_samples=2 * CHUNK)))
            talk.journal.record(interrupt)
        else:
            await talk.interrupt(2 * CHUNK)
        if heard == "the gateway":
            # Acknowledged, and the client does not read it.
            await eventually(lambda: one.metric("visavis_gateway_interruption_seconds_count") == 1)
        elif heard == "acknowledged":
            await talk.until("interrupted")
        await break_and_resume(talk, two)
        await talk.speak(answer)
        await talk.end_audio()
        await talk.finish()
        talk.check()
        assert max(segment.epoch for segment in talk.segments) == 2
        assert {s.chunk_index for s in talk.segments if s.epoch == 2} == {3, 4}


async def saved_chunks(gateway: GatewayUnderTest) -> int:
    return len(await gateway.redis.keys("visavis:*:made:*"))


async def test_a_checkpoint_older_than_what_the_client_has(redis_url: str) -> None:
    """The gateway dies without a word, and wrote its last checkpoint a while ago."""
    async with two_gateways(redis_url, paced_stages(), CHECKPOINT_CHUNKS="4") as (one, two), recorded_talk(one) as talk:
        await talk.speak(SPEECH)
        await talk.until_chunk(4)
        await eventually(lambda: saved_chunks(one))
        await talk.until_chunk(6)
        assert await saved_chunks(one) == 4
        await talk.resume(two)  # the old gateway still serves, and is told so by its next checkpoint or its generator
        await talk.end_audio()
        await talk.finish()
        talk.check()


# Who may --------------------------------------------------------------------------------------------------------------


async def refusal(gateway: GatewayUnderTest, token: str, **position: object) -> VisavisError:
    async with open_stream(gateway) as stream:
        resume = ResumeSession(resume_token=token, epoch=1, input_position=InputPosition(), **position)  # type: ignore[arg-type]
        await stream.send(TalkRequest(resume=resume))
        return await stream.failure()


async def test_a_token_is_void_once_the_client_has_the_next(redis_url: str) -> None:
    async with two_gateways(redis_url, paced_stages()) as (one, two), recorded_talk(one) as talk:
        await talk.speak(SPEECH)
        await talk.until_chunk(2)
        stale = talk.token
        await break_and_resume(talk, two)
        assert talk.token != stale
        await talk.speak(SPEECH)
        await talk.until_chunk(4)
        right = f"visavis:{{{ResumeToken.parse(stale).session_id}}}:right"

        async def client_has_shown_it() -> bool:
            return not await one.redis.hexists(right, "previous")

        await eventually(client_has_shown_it)
        for gateway in (one, two):
            assert isinstance(await refusal(gateway, stale), NotFound)
        await talk.end_audio()
        await talk.finish()
        talk.check()


async def test_a_client_that_never_got_its_new_token_comes_back_with_the_old_one(redis_url: str) -> None:
    async with two_gateways(redis_url, paced_stages()) as (one, two), recorded_talk(one) as talk:
        await talk.speak(SPEECH)
        await talk.until_chunk(2)
        talk.break_off()
        for gateway in (two, one, two):
            lost = TalkStream(gateway.stub.Talk())
            await lost.send(talk.progress.request(talk.token))
            assert (await lost.next()).HasField("resumed")
            lost.call.cancel()
        await talk.resume(one)
        await talk.end_audio()
        await talk.finish()
        talk.check()


async def test_of_two_clients_with_one_token_one_wins(redis_url: str) -> None:
    async with two_gateways(redis_url, paced_stages()) as (one, two), recorded_talk(one) as talk:
        await talk.speak(SPEECH)
        await talk.until_chunk(2)
        talk.break_off()
        await eventually(lambda: one.runtime.slots.used_slots == 0)
        request = talk.progress.request(talk.token)
        streams = [TalkStream(gateway.stub.Talk()) for gateway in (one, two)]
        for stream in streams:
            await stream.send(request)

        ends = [asyncio.create_task(stream.rest()) for stream in streams]
        refused, serving = await asyncio.wait(ends, timeout=LIMIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        assert len(refused) == len(serving) == 1
        assert isinstance(refused.pop().exception(), NotFound | LeaseLost)
        # Whoever serves goes on with it.
        assert not (await asyncio.wait(serving, timeout=0.5))[0]
        for stream in streams:
            stream.call.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


async def test_the_stream_that_is_replaced_ends_with_aborted(redis_url: str) -> None:
    stages = paced_stages(0.2)
    async with two_gateways(redis_url, stages) as (one, two):
        for gateway in (one, two):
            async with recorded_talk(one) as talk:
                await talk.speak(SPEECH)
                await talk.until_chunk(1)
                replaced = talk.stream
                await talk.resume(gateway)
                error = await replaced.failure()
                assert isinstance(error, LeaseLost)
                assert error.message == "the session was resumed in another stream"
                await talk.end_audio()
                await talk.finish()
                talk.check()


async def test_a_full_gateway_resumes_the_session_that_fills_it(redis_url: str) -> None:
    async with two_gateways(redis_url, paced_stages(), SLOTS="1") as (one, two), recorded_talk(one) as talk:
        await talk.speak(SPEECH)
        for chunk_index in (1, 3):
            await talk.until_chunk(chunk_index)
            left_behind = talk.stream
            await talk.resume(one)  # which has not noticed yet that the old connection is dead
            assert isinstance(await left_behind.failure(), LeaseLost)
            guessed = f"{ResumeToken.parse(talk.token).session_id}.guessed"
            assert isinstance(await refusal(one, guessed), NotFound)
            assert isinstance(await refusal(one, "another.secret"), CapacityExhausted)
        async with recorded_talk(two) as other:
            assert isinstance(await refusal(one, other.token), CapacityExhausted)
            assert one.runtime.slots.used_slots == 1
        await talk.end_audio()
        await talk.finish()
        talk.check()
        await eventually(lambda: one.runtime.slots.used_slots == 0)


async def test_tokens_that_resume_nothing(redis_url: str) -> None:
    async with running_gateway(redis_url) as gateway, recorded_talk(gateway) as talk:
        for text in ("", "x", ".", "a.", ".b", "a b.c", talk.token.partition(".")[0], "a." + "b" * 300):
            assert isinstance(await refusal(gateway, text), InvalidInput)
        session_id = ResumeToken.parse(talk.token).session_id
        assert isinstance(await refusal(gateway, f"{session_id}.guessed"), NotFound)
        assert isinstance(await refusal(gateway, "unknown.secret"), NotFound)
        assert gateway.metric("visavis_gateway_resumed_sessions_total", result="refused") > 0
        await talk.speak(SPEECH)
        await talk.end_audio()
        await talk.finish()
        talk.check()


@pytest.mark.parametrize(
    "position",
    [
        {"last_frame_index": 10},
        {"last_frame_index": 24, "partial_chunk_position": InputPosition(samples=5)},
        {"last_frame_index": 10, "partial_chunk_position": InputPosition(samples=CHUNK + 1)},
        {"last_frame_index": 10, "partial_chunk_position": InputPosition(samples=-1)},
        {"last_frame_index": 10, "partial_chunk_position": InputPosition()},
        {"last_frame_index": 2**60},
    ],
    ids=["no position", "of no chunk", "over a chunk", "negative", "idle in a paused session", "endless"],
)
async def test_positions_that_cannot_be(redis_url: str, position: dict[str, object]) -> None:
    async with running_gateway(redis_url) as gateway, recorded_talk(gateway) as talk:
        await talk.speak(SPEECH)
        await talk.until_chunk(1)
        talk.break_off()
        assert isinstance(await refusal(gateway, talk.token, **position), InvalidInput)
        await talk.resume()
        await talk.end_audio()
        await talk.finish()
        talk.check()


async def test_the_secret_is_not_in_redis(redis_url: str) -> None:
    async with running_gateway(redis_url) as gateway, recorded_talk(gateway) as talk:
        secret = ResumeToken.parse(talk.token).secret.encode()
        for key in await gateway.redis.keys("visavis:*"):
            assert secret not in (await gateway.redis.dump(key) or b"")
        right = await gateway.redis.hgetall(next(iter(await gateway.redis.keys("visavis:*:right"))))
        assert secret not in b"".join(bytes(value) for value in right.values())  # type: ignore[arg-type]


# What is left ---------------------------------------------------------------------------------------------------------


async def test_nothing_stays_when_the_window_has_passed(redis_url: str) -> None:
    async with running_gateway(redis_url, RESUME_WINDOW_SECONDS="0.5") as gateway, recorded_talk(gateway) as lost:
        await lost.speak(SPEECH)
        await lost.until_chunk(3)
        lost.break_off()
        async with recorded_talk(gateway) as done:
            await done.speak(SPEECH)
            await done.end_audio()
            await done.finish()
        await eventually(lambda: gateway.runtime.slots.used_slots == 0)

        async def nothing_is_left() -> bool:
            names = ("session", "config", "right", "lease", "heard:*", "made:*")
            return not any([await gateway.redis.keys(f"visavis:*:{name}") for name in names])

        await eventually(nothing_is_left, seconds=15)
        assert isinstance(await refusal(gateway, lost.token), NotFound)


async def test_what_the_client_broke_is_forgotten_at_once(redis_url: str) -> None:
    async with running_gateway(redis_url) as gateway, recorded_talk(gateway) as talk:
        await talk.speak(SPEECH)
        await talk.until_chunk(2)
        await talk.stream.send(TalkRequest())
        assert isinstance(await talk.stream.failure(), InvalidInput)
        assert isinstance(await refusal(gateway, talk.token), NotFound)


async def test_a_draining_gateway_leaves_its_sessions_to_another(redis_url: str) -> None:
    async with two_gateways(redis_url, paced_stages()) as (one, two):
        wanted = await undisturbed_pictures(one, SPEECH)
        async with recorded_talk(one) as talk:
            await talk.speak(SPEECH)
            await talk.until_chunk(3)
            one.runtime.slots.drain()
            one.runtime.slots.evict_all(Draining("shutting down", 0))
            while True:
                try:
                    await talk.next()
                except AssertionError:
                    break
                except Exception:
                    break
            await gone(talk.stream.call)
            await talk.resume(two)
            await talk.end_audio()
            await talk.finish()
            talk.check()
            assert talk.pictures() == wanted


async def test_generators_hold_one_lease_at_a_time(redis_url: str) -> None:
    stages = paced_stages()
    stages.insert(2, GeneratorServer())
    async with two_gateways(redis_url, stages) as (one, two), recorded_talk(one) as talk:
        await talk.speak(SPEECH)
        tokens: list[int] = []
        for gateway in (two, one, two):
            await talk.until_chunk(len(tokens) + 2)
            await break_and_resume(talk, gateway, settle=False)
            lease = await one.runtime.leases.current(ResumeToken.parse(talk.token).session_id)
            assert lease is not None
            tokens.append(lease.token)
        assert tokens == sorted(set(tokens))
        await talk.end_audio()
        await talk.finish()
        talk.check()
