import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import torch

from services.generator.engine import GeneratorEngine
from tests.patience import PATIENCE_SECONDS
from tests.services.engine_driver import random_tensor
from tests.services.generator.messages import config, portrait_latent, speech
from tests.services.service_process import ServiceProcess, StageStream, service_process
from tests.services.tiny_settings import generator_settings
from visavis.models.generation import begin_session, generate_chunk
from visavis.models.tensors import tensor_from_message
from visavis.runtime.embedded_redis import EmbeddedRedis
from visavis.runtime.errors import (
    CapacityExhausted,
    InvalidInput,
    LeaseHeld,
    LeaseLost,
    StateStoreUnavailable,
    VisavisError,
)
from visavis.runtime.leases import LeaseStore, lease_key
from visavis.runtime.redis_connection import RedisClient, connect_redis
from visavis.runtime.settings import RedisSettings
from visavis.v1 import generator_pb2
from visavis.v1.generator_pb2_grpc import GeneratorServiceStub

# Renewed every 1.5 s; whoever stands still for two seconds has it all the same.
LEASE_SECONDS = 4.5


@pytest.fixture(scope="module")
def service(valkey: EmbeddedRedis) -> Iterator[ServiceProcess]:
    settings = {"VISAVIS_SLOTS": "3", "VISAVIS_LEASE_SECONDS": str(LEASE_SECONDS)}
    with service_process("services.generator", valkey.url, **settings) as process:
        yield process


@pytest.fixture
async def stub(service: ServiceProcess) -> AsyncIterator[GeneratorServiceStub]:
    async with service.channel() as channel:
        yield GeneratorServiceStub(channel)


@pytest.fixture
async def redis(valkey: EmbeddedRedis) -> AsyncIterator[RedisClient]:
    client = connect_redis(RedisSettings(valkey.url, timeout_seconds=PATIENCE_SECONDS))
    yield client
    await client.aclose()


@pytest.fixture
def leases(redis: RedisClient) -> LeaseStore:
    return LeaseStore(redis, lease_seconds=600.0, timeout_seconds=PATIENCE_SECONDS)


def config_request(session_id: str, seed: int = 1) -> generator_pb2.GenerateRequest:
    return generator_pb2.GenerateRequest(config=config(session_id, seed))


def speech_request(index: int, seed: int = 1, *, epoch: int = 1) -> generator_pb2.GenerateRequest:
    return generator_pb2.GenerateRequest(speech=speech(index, seed, epoch=epoch))


async def generate(stub: GeneratorServiceStub, session_id: str, seed: int) -> list[torch.Tensor]:
    """A whole session of three chunks."""
    async with StageStream(stub.Generate(timeout=60)) as stream:
        await stream.send(config_request(session_id, seed))
        assert (await stream.receive()).ready.model.name == "tiny"
        for index in (1, 2, 3):
            await stream.send(speech_request(index, seed))
        answers = [response.chunk for response in await stream.rest()]
    assert [answer.video.header.chunk_index for answer in answers] == [1, 2, 3]
    return [tensor_from_message(answer.video.latents) for answer in answers]


async def refusal(stub: GeneratorServiceStub, *requests: generator_pb2.GenerateRequest) -> VisavisError:
    """What the service says to these requests."""
    async with StageStream(stub.Generate(timeout=60)) as stream:
        with pytest.raises(VisavisError) as caught:
            await stream.exchange(requests)
        return caught.value


async def test_latents_are_bit_for_bit_those_of_one_process_alone_and_side_by_side(stub: GeneratorServiceStub) -> None:
    engine = GeneratorEngine(generator_settings())
    engine.warm_up()
    alone = await generate(stub, "alone", 5)
    together = await asyncio.gather(*(generate(stub, f"together-{seed}", seed) for seed in (5, 6, 7)))
    for seed, latents in ((5, alone), *zip((5, 6, 7), together, strict=True)):
        portrait = tensor_from_message(portrait_latent())
        state = begin_session(engine._loaded.module, portrait, seed, engine._loaded.preset.sampling)
        for index, answer in enumerate(latents, start=1):
            expected, state = generate_chunk(tensor_from_message(speech(index, seed).latents), state)
            assert torch.equal(answer, expected)


async def test_a_session_runs_under_a_lease_that_it_renews_and_gives_back(
    stub: GeneratorServiceStub, service: ServiceProcess, leases: LeaseStore, redis: RedisClient
) -> None:
    async with StageStream(stub.Generate(timeout=60)) as stream:
        await stream.send(config_request("leased"))
        ready = (await stream.receive()).ready
        assert ready.generator_id == service.instance_id
        async with asyncio.timeout(PATIENCE_SECONDS):
            before = await redis.pttl(lease_key("leased"))
            while (now := await redis.pttl(lease_key("leased"))) <= before:
                before = now
                await asyncio.sleep(0.05)
        current = await leases.current("leased")
        assert current is not None
        assert (current.holder, current.token) == (service.instance_id, ready.fencing_token)
        assert isinstance(await refusal(stub, config_request("leased")), LeaseHeld)
        await stream.rest()
    assert await leases.current("leased") is None
    async with StageStream(stub.Generate(timeout=60)) as again:
        await again.send(config_request("leased"))
        assert (await again.receive()).ready.fencing_token > ready.fencing_token


async def test_a_session_that_another_generator_serves_is_refused(
    stub: GeneratorServiceStub, leases: LeaseStore
) -> None:
    lease = await leases.claim("taken", "another generator")
    assert isinstance(await refusal(stub, config_request("taken")), LeaseHeld)
    await leases.release(lease)
    assert len(await generate(stub, "taken", 1)) == 3


async def test_a_lost_lease_ends_the_session(stub: GeneratorServiceStub, leases: LeaseStore) -> None:
    async with StageStream(stub.Generate(timeout=60)) as stream:
        await stream.send(config_request("stolen"))
        token = (await stream.receive()).ready.fencing_token
        successor = await leases.claim("stolen", "another generator", take_over_token=token)
        assert successor.token > token
        async with asyncio.timeout(PATIENCE_SECONDS):
            with pytest.raises(LeaseLost):
                await stream.receive()
    assert await leases.current("stolen") == successor
    await leases.release(successor)


async def test_a_vanished_client_frees_slot_and_lease(stub: GeneratorServiceStub, leases: LeaseStore) -> None:
    streams = []
    for index in range(3):
        stream = StageStream(stub.Generate(timeout=60))
        await stream.send(config_request(f"gone-{index}"))
        await stream.receive()
        await stream.send(speech_request(1))
        streams.append(stream)
    assert isinstance(await refusal(stub, config_request("late")), CapacityExhausted)
    assert await leases.current("late") is None
    for stream in streams:
        await stream.__aexit__()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert len(await generate_when_free(stub)) == 3


async def released(leases: LeaseStore, session_id: str) -> None:
    while await leases.current(session_id) is not None:  # noqa: ASYNC110  # another process releases it
        await asyncio.sleep(0.02)


async def generate_when_free(stub: GeneratorServiceStub) -> list[torch.Tensor]:
    while True:
        try:
            return await generate(stub, "gone-0", 1)
        except (CapacityExhausted, LeaseHeld):
            await asyncio.sleep(0.02)


async def test_a_stream_that_breaks_the_rules_is_refused(stub: GeneratorServiceStub, leases: LeaseStore) -> None:
    start = config_request("rules")
    wrong_shape, missing = speech_request(1), speech_request(1)
    wrong_shape.speech.latents.CopyFrom(random_tensor(1, (3, 2, 7)))
    missing.speech.ClearField("latents")
    for requests, field in (
        ([speech_request(1)], "request"),
        ([start, start], "config"),
        ([start, speech_request(7)], "speech.header.chunk_index"),
        ([start, speech_request(1, epoch=3), speech_request(2, epoch=2)], "speech.header.epoch"),
        ([start, wrong_shape], "speech.latents"),
        ([start, missing], "speech.latents"),
    ):
        error = await refusal(stub, *requests)
        assert isinstance(error, InvalidInput), error
        assert error.field == field
        async with asyncio.timeout(PATIENCE_SECONDS):
            await released(leases, "rules")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda c: c.ClearField("session_id"), "config.session_id"),
        (lambda c: setattr(c, "session_id", "a/b"), "config.session_id"),
        (lambda c: c.ClearField("avatar_id"), "config.avatar_id"),
        (lambda c: c.ClearField("portrait_latent"), "config.portrait_latent"),
        (lambda c: c.portrait_latent.CopyFrom(random_tensor(1, (1, 2, 2, 15))), "config.portrait_latent"),
        (lambda c: setattr(c, "sampling", 77), "config.sampling"),
    ],
)
async def test_a_bad_config_is_refused_by_the_name_of_its_field(
    stub: GeneratorServiceStub,
    leases: LeaseStore,
    change: Callable[[generator_pb2.GenerateConfig], None],
    field: str,
) -> None:
    request = config_request("bad")
    change(request.config)
    error = await refusal(stub, request)
    assert isinstance(error, InvalidInput)
    assert error.field == field
    assert await leases.current("bad") is None


async def test_without_redis_new_sessions_are_refused_and_running_ones_go_on() -> None:
    with (
        EmbeddedRedis() as own_redis,
        service_process("services.generator", own_redis.url, VISAVIS_LEASE_SECONDS="1") as process,
    ):
        async with process.channel() as channel:
            stub = GeneratorServiceStub(channel)
            async with StageStream(stub.Generate(timeout=60)) as stream:
                await stream.send(config_request("running"))
                await stream.receive()
                await own_redis.stop()
                assert isinstance(await refusal(stub, config_request("new")), StateStoreUnavailable)
                for index in (1, 2):
                    await stream.send(speech_request(index))
                assert len(await stream.rest()) == 2
