"""A session stays with generators that sample in one way, whoever is lost and whoever resumes it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from gateway.checkpoint import Checkpoint, checkpoint_state, read_checkpoint
from gateway.input_position import InputPosition
from gateway.placement import GENERATOR, STAGES, fitting_instances, place_session
from gateway.sampling import SamplingWish
from tests.gateway.gateway_harness import GatewayUnderTest, one_of_each, running_gateway
from tests.gateway.recorded_talk import RecordedTalk, recorded_talk
from tests.gateway.stage_servers import GeneratorServer
from tests.gateway.strategies import noise_pcm
from tests.gateway.talk_client import MONO_16K, eventually, open_stream, session_config
from visavis.runtime.errors import InvalidInput, ModelMismatch, StageUnavailable
from visavis.runtime.registry import StageInstance
from visavis.v1 import generator_pb2
from visavis.v1.generator_pb2 import SamplingPreset
from visavis.v1.talking_head_pb2 import GetServerInfoRequest, SessionConfig, TalkRequest

ANY, STANDARD, FAST = (
    generator_pb2.SAMPLING_PRESET_UNSPECIFIED,
    generator_pb2.SAMPLING_PRESET_STANDARD,
    generator_pb2.SAMPLING_PRESET_FAST,
)
SPEECH = noise_pcm(MONO_16K, 5 * 15_360, 1)
EVERY_CHUNK = {"CHECKPOINT_CHUNKS": "1"}


def instance(instance_id: str, sampling: str, stage: str = GENERATOR, used_slots: int = 0) -> StageInstance:
    return StageInstance(
        stage=stage,
        instance_id=instance_id,
        address="127.0.0.1:1",
        slots=4,
        used_slots=used_slots,
        draining=False,
        model_name="tiny",
        model_fingerprint="model",
        random_weights=True,
        width=64,
        height=64,
        frame_rate=25,
        compatibility="",
        sampling=sampling,
    )


GENERATORS = [
    instance("a", "", used_slots=1),
    instance("b", "standard", used_slots=2),
    instance("c", "fast:1"),
    instance("d", "fast:2", used_slots=3),
    instance("e", "fast:1", used_slots=3),
]
INSTANCES = {stage: [instance(stage, "", stage)] for stage in STAGES} | {GENERATOR: GENERATORS}


@pytest.mark.parametrize(
    ("preset", "pinned", "expected"),
    [
        # The least loaded decides; one that says nothing is of before there was another way.
        (ANY, "", "ce"),
        (FAST, "", "ce"),
        (STANDARD, "", "ab"),
        (ANY, "fast:2", "d"),
        (STANDARD, "fast:1", "ce"),
        (ANY, "standard", "ab"),
    ],
)
def test_all_candidates_of_a_session_sample_alike(preset: SamplingPreset.ValueType, pinned: str, expected: str) -> None:
    placed = place_session(INSTANCES, "model", sampling=SamplingWish(preset, pinned))
    assert [generator.instance_id for generator in placed[GENERATOR]] == list(expected)
    assert all(len(placed[stage]) == 1 for stage in STAGES if stage != GENERATOR)


def test_a_running_session_is_joined_by_its_own_kind_alone() -> None:
    assert [one.instance_id for one in fitting_instances(GENERATORS, "model", "", "fast:1")] == ["c", "e"]
    assert [one.instance_id for one in fitting_instances(GENERATORS, "model", "", "standard")] == ["a", "b"]
    decoders = [replace(generator, stage="decoder", sampling="") for generator in GENERATORS]
    assert len(fitting_instances(decoders, "model", "", "fast:1")) == len(decoders)


def test_what_nobody_serves_is_missing_for_a_while_or_for_good() -> None:
    only_standard = INSTANCES | {GENERATOR: GENERATORS[:2]}
    with pytest.raises(ModelMismatch, match=r"config\.sampling"):
        place_session(only_standard, "model", sampling=SamplingWish(FAST, ""))
    with pytest.raises(StageUnavailable, match="generator"):
        place_session(only_standard, "model", sampling=SamplingWish(FAST, "fast:1"))


@pytest.mark.parametrize(("sampling", "readable_by"), [("standard", 1), ("fast:1", 2)])
def test_gateways_that_know_one_way_of_sampling_leave_other_sessions_alone(sampling: str, readable_by: int) -> None:
    checkpoint = Checkpoint(
        config=SessionConfig(avatar_id="a", seed=7),
        epoch=1,
        epoch_border=0,
        epoch_position=InputPosition(0, 0),
        last_written=0,
        chunks_written=0,
        frames_written=0,
        started_unix_seconds=0.0,
        gateway_id="g",
        generator_id="0",
        sampling=sampling,
        replay_chunks={},
        chunks=(),
    )
    state = checkpoint_state(checkpoint)
    assert json.loads(state)["version"] == readable_by
    assert read_checkpoint(state, checkpoint.config.SerializeToString(), {}) == checkpoint


@asynccontextmanager
async def both_kinds(redis_url: str, *samplings: str) -> AsyncIterator[tuple[GatewayUnderTest, list[GeneratorServer]]]:
    """A gateway in front of generators that sample so; of equally loaded ones the first is preferred."""
    generators = [GeneratorServer(instance_id=str(number)) for number in range(len(samplings))]
    encoder, _, decoder = one_of_each()
    async with running_gateway(redis_url, [encoder, *generators, decoder], **EVERY_CHUNK) as gateway:
        for generator, sampling in zip(generators, samplings, strict=True):
            await generator.register(gateway.registry, sampling=sampling)
        yield gateway, generators


async def say(talk: RecordedTalk) -> None:
    await talk.speak(SPEECH)
    await talk.end_audio()
    await talk.finish()
    talk.check()


async def test_a_session_gets_the_way_of_sampling_that_it_asks_for(redis_url: str) -> None:
    async with both_kinds(redis_url, "standard", "fast:1") as (gateway, (standard, fast)):
        info = await gateway.stub.GetServerInfo(GetServerInfoRequest())
        assert list(info.sampling_presets) == [STANDARD, FAST]
        for asked, generator, pinned in ((FAST, fast, "fast:1"), (STANDARD, standard, "standard")):
            async with recorded_talk(gateway, sampling=asked) as talk:
                await say(talk)
            assert len(generator.configs) == 1
            assert generator.configs[0].pinned_sampling == pinned


async def test_a_way_that_nobody_serves_or_knows_is_refused(redis_url: str) -> None:
    async with both_kinds(redis_url, "standard") as (gateway, _):
        avatar_id = await gateway.register_avatar()

        async def refusal(sampling: int) -> Exception:
            async with open_stream(gateway) as stream:
                await stream.send(TalkRequest(config=session_config(avatar_id, sampling=sampling)))
                return await stream.failure()

        assert isinstance(await refusal(77), InvalidInput)
        # Retryable at first: a fast generator may be on its way.
        error = await refusal(FAST)
        assert isinstance(error, ModelMismatch | StageUnavailable)
        assert "config.sampling" in str(error)
        assert (await gateway.stub.GetServerInfo(GetServerInfoRequest())).sampling_presets == [STANDARD]


async def test_a_lost_generator_is_replaced_by_its_own_kind_alone(redis_url: str) -> None:
    async with both_kinds(redis_url, "fast:1", "standard", "fast:2", "fast:1") as (gateway, generators):
        lost, standard, other_adapter, same = generators
        lost.faults.dies_at_chunk = 3
        async with recorded_talk(gateway) as talk:
            await say(talk)
        assert same.configs[-1].HasField("resume")
        assert same.configs[-1].pinned_sampling == "fast:1"
        assert standard.configs == other_adapter.configs == []
        same.faults.dies_at_chunk = 2
        lost.faults.dies_at_chunk = 2
        async with recorded_talk(gateway) as talk:
            await talk.speak(SPEECH)
            await talk.end_audio()
            assert isinstance(await talk.stream.failure(), StageUnavailable)
        assert standard.configs == other_adapter.configs == []


async def test_a_resumed_session_goes_back_to_its_own_kind(redis_url: str) -> None:
    """The gateway that takes it over knows the way of sampling from the checkpoint alone."""
    async with both_kinds(redis_url, "fast:1", "standard") as (one, (fast, standard)):
        async with running_gateway(redis_url, [], **EVERY_CHUNK) as two, recorded_talk(one) as talk:
            await talk.speak(SPEECH)
            await talk.until_chunk(2)
            talk.break_off()
            await eventually(lambda: one.runtime.slots.used_slots == 0)
            # Now the least loaded one is of the other kind.
            await fast.register(one.registry, sampling="fast:1", used_slots=3)
            await talk.resume(two)
            await talk.end_audio()
            await talk.finish()
            talk.check()
        assert len(fast.configs) == 2
        assert standard.configs == []
