"""Stages and Redis that are full, down, slow, dying or wrong: what the client is told, and what stays held."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import grpc
import pytest

from gateway.mismatches import Mismatches
from tests.gateway.gateway_harness import GatewayUnderTest, one_of_each, running_gateway
from tests.gateway.stage_servers import SECRET, GeneratorServer
from tests.gateway.strategies import noise_pcm
from tests.gateway.talk_client import LIMIT_SECONDS, MONO_16K, eventually, open_stream, session_config, talking
from visavis.runtime.embedded_redis import EmbeddedRedis
from visavis.runtime.errors import (
    CapacityExhausted,
    Draining,
    ModelMismatch,
    StagesUnsettled,
    StageUnavailable,
    StateStoreUnavailable,
    VisavisError,
)
from visavis.runtime.registry import HEARTBEATS_PER_EXPIRY
from visavis.v1.talking_head_pb2 import TalkRequest

SPEECH = noise_pcm(MONO_16K, 15_360, 1)
STAGES = ["audio_encoder", "generator", "decoder"]


async def refused_session(gateway: GatewayUnderTest, avatar_id: str, timeout: float = LIMIT_SECONDS) -> VisavisError:
    async with open_stream(gateway) as stream:
        await stream.send(TalkRequest(config=session_config(avatar_id)))
        return await stream.failure(timeout)


@dataclass
class SettlingClock:
    """The clock by which a mismatch settles."""

    now: float = 0.0

    async def settled_refusal(self, gateway: GatewayUnderTest, avatar_id: str) -> VisavisError:
        """What is told for good, behind what may pass."""
        error = await refused_session(gateway, avatar_id)
        if isinstance(error, StagesUnsettled):
            assert error.retry_after_seconds == gateway.settings.service.heartbeat_seconds
            self.now += HEARTBEATS_PER_EXPIRY * gateway.settings.service.heartbeat_seconds
            error = await refused_session(gateway, avatar_id)
        return error


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SettlingClock:
    clock = SettlingClock()
    monkeypatch.setattr("gateway.stages.Mismatches", lambda seconds: Mismatches(seconds, lambda: clock.now))
    return clock


# While opening --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(3), ids=STAGES)
async def test_a_full_stage_is_an_answer_at_once(redis_url: str, number: int) -> None:
    stages = one_of_each()
    async with running_gateway(redis_url, stages) as gateway:
        avatar_id = await gateway.register_avatar()
        stages[number].faults.full = True
        error = await refused_session(gateway, avatar_id, timeout=20)
        assert isinstance(error, CapacityExhausted)
        assert error.retry_after_seconds == 1.5
        assert STAGES[number] in error.message
        await eventually(lambda: not any(stage.sessions for stage in stages))


async def test_a_full_instance_sends_the_session_to_the_next(redis_url: str) -> None:
    full, free = GeneratorServer(instance_id="0"), GeneratorServer(instance_id="1")
    full.faults.full = True
    encoder, _, decoder = one_of_each()
    async with running_gateway(redis_url, [encoder, full, free, decoder]) as gateway, talking(gateway) as stream:
        assert len(free.sessions) == 1
        await stream.end_audio()
        await stream.rest()


async def test_sessions_spread_over_the_least_loaded(redis_url: str) -> None:
    busy, idle = GeneratorServer(instance_id="0"), GeneratorServer(instance_id="1")
    encoder, _, decoder = one_of_each()
    async with running_gateway(redis_url, [encoder, busy, idle, decoder]) as gateway:
        await busy.register(gateway.registry, used_slots=3)
        async with talking(gateway):
            assert (len(busy.sessions), len(idle.sessions)) == (0, 1)


async def test_a_draining_instance_gets_no_session(redis_url: str) -> None:
    draining, other = GeneratorServer(instance_id="0"), GeneratorServer(instance_id="1")
    encoder, _, decoder = one_of_each()
    async with running_gateway(redis_url, [encoder, draining, other, decoder]) as gateway:
        await draining.register(gateway.registry, draining=True)
        async with talking(gateway):
            assert (len(draining.sessions), len(other.sessions)) == (0, 1)


async def test_an_instance_that_died_sends_the_session_to_the_next(redis_url: str) -> None:
    dead, alive = GeneratorServer(instance_id="0"), GeneratorServer(instance_id="1")
    encoder, _, decoder = one_of_each()
    async with running_gateway(redis_url, [encoder, dead, alive, decoder]) as gateway:
        await dead.stop()
        async with talking(gateway):
            assert len(alive.sessions) == 1


@pytest.mark.parametrize("number", range(3), ids=STAGES)
async def test_a_stage_that_is_down_is_named_and_nothing_else(redis_url: str, number: int) -> None:
    stages = one_of_each()
    async with running_gateway(redis_url, stages) as gateway:
        avatar_id = await gateway.register_avatar()
        await stages[number].stop()
        error = await refused_session(gateway, avatar_id)
        assert error.message == f"the stage {STAGES[number]} is not available; try again"
        await gateway.registry.remove(STAGES[number], stages[number].instance_id)
        error = await refused_session(gateway, avatar_id)
        assert isinstance(error, StageUnavailable)
        assert error.message == f"the stage {STAGES[number]} is not available; try again"


@pytest.mark.parametrize("number", range(3), ids=STAGES)
async def test_stages_of_different_models_do_not_serve_together(
    redis_url: str, clock: SettlingClock, number: int
) -> None:
    stages = one_of_each()
    async with running_gateway(redis_url, stages) as gateway:
        avatar_id = await gateway.register_avatar()
        # Restarted with another model behind the back of its last heartbeat.
        stages[number].faults.fingerprint = "cd" * 32
        assert isinstance(await clock.settled_refusal(gateway, avatar_id), ModelMismatch)
        await stages[number].register(gateway.registry, model_fingerprint="cd" * 32)
        assert isinstance(await clock.settled_refusal(gateway, avatar_id), ModelMismatch)
        await eventually(lambda: not any(stage.sessions for stage in stages))


async def test_an_avatar_of_another_model_is_refused(redis_url: str, clock: SettlingClock) -> None:
    stages = one_of_each()
    async with running_gateway(redis_url, stages) as gateway:
        avatar_id = await gateway.register_avatar()
        for stage in stages:
            stage.faults.fingerprint = "cd" * 32
            await stage.register(gateway.registry, model_fingerprint="cd" * 32)
        error = await clock.settled_refusal(gateway, avatar_id)
        assert isinstance(error, ModelMismatch)
        assert "register it again" in error.message


async def test_stages_that_do_not_understand_each_other_are_not_mixed(redis_url: str) -> None:
    wide, narrow = GeneratorServer(instance_id="0"), GeneratorServer(instance_id="1")
    wide.compatibility, narrow.compatibility = "float32", "bfloat16"
    encoder, _, decoder = one_of_each()
    decoder.compatibility = "bfloat16"
    async with running_gateway(redis_url, [encoder, wide, narrow, decoder]) as gateway, talking(gateway):
        assert (len(wide.sessions), len(narrow.sessions)) == (0, 1)


# In mid-stream --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["dies_at_chunk", "hangs_at_chunk", "skips_at_chunk", "closes_at_chunk"])
@pytest.mark.parametrize("number", range(3), ids=STAGES)
async def test_a_stage_that_fails_again_and_again_ends_its_session_and_frees_the_others(
    redis_url: str, number: int, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    stages = one_of_each()
    setattr(stages[number].faults, fault, 2)
    async with (
        running_gateway(redis_url, stages, STAGE_STALL_SECONDS="0.5", RECOVERY_SECONDS="0.2") as gateway,
        talking(gateway) as stream,
    ):
        await stream.speak(SPEECH * 4)
        error = await stream.failure()
        assert isinstance(error, StageUnavailable)
        assert error.code is grpc.StatusCode.UNAVAILABLE
        assert error.message == f"the stage {STAGES[number]} failed; resume the session"
        assert SECRET not in error.message
        await eventually(lambda: not any(stage.sessions for stage in stages))
        assert gateway.runtime.slots.used_slots == 0
        assert "stage failed" in caplog.text
        assert [kind for kind in stream.kinds if kind != "segment"] == ["started"]


@pytest.mark.parametrize("number", range(3), ids=STAGES)
async def test_a_stage_that_goes_away_is_noticed_by_a_silent_session(redis_url: str, number: int) -> None:
    stages = one_of_each()
    async with running_gateway(redis_url, stages, RECOVERY_SECONDS="0.3") as gateway, talking(gateway) as stream:
        await stages[number].stop()
        assert isinstance(await stream.failure(), StageUnavailable)
        assert gateway.runtime.slots.used_slots == 0


async def test_one_failed_session_leaves_the_others_alone(redis_url: str) -> None:
    stages = one_of_each()
    async with running_gateway(redis_url, stages) as gateway, talking(gateway) as healthy, talking(gateway) as other:
        stages[1].faults.dies_at_chunk = 1
        await other.speak(SPEECH * 2)
        assert isinstance(await other.failure(), StageUnavailable)
        stages[1].faults.dies_at_chunk = 0
        await healthy.speak(SPEECH)
        await healthy.end_audio()
        await healthy.rest()


async def test_draining_refuses_new_sessions_and_cuts_off_those_that_stay(redis_url: str) -> None:
    async with running_gateway(redis_url) as gateway, talking(gateway) as stream:
        avatar_id = await gateway.register_avatar()
        gateway.runtime.slots.drain()
        assert isinstance(await refused_session(gateway, avatar_id), Draining)
        await stream.speak(SPEECH * 2)
        await stream.until("segment")
        gateway.runtime.slots.evict_all(Draining("shutting down", 0))
        assert isinstance(await stream.failure(), Draining)


# Redis ----------------------------------------------------------------------------------------------------------------


async def test_without_redis_calls_get_unavailable() -> None:
    async with running_gateway("redis://127.0.0.1:1/0", []) as gateway:
        error = await refused_session(gateway, "a")
        assert isinstance(error, StateStoreUnavailable)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await gateway.register_avatar()
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_running_session_outlives_redis() -> None:
    with EmbeddedRedis() as redis:
        async with (
            running_gateway(redis.url, CHECKPOINT_SECONDS="0.05") as gateway,
            talking(gateway) as stream,
        ):
            await stream.speak(SPEECH * 2)
            await stream.until("segment")
            await redis.stop()
            await asyncio.sleep(0.2)
            await stream.speak(SPEECH * 2)
            await stream.end_audio()
            await stream.rest()
            assert stream.received[-1].ended.chunks == 4
            assert isinstance(await refused_session(gateway, "a"), StateStoreUnavailable)
