import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.audio_encoder.engine import AudioEncoderEngine
from tests.patience import PATIENCE_SECONDS
from tests.services.audio_encoder.messages import chunk_of, clip
from tests.services.service_process import ServiceProcess, StageStream, service_process
from tests.services.tiny_settings import audio_encoder_settings
from visavis.models.tensors import tensor_from_message
from visavis.runtime.embedded_redis import EmbeddedRedis
from visavis.runtime.errors import CapacityExhausted, InvalidInput, WorkerLost
from visavis.v1 import audio_encoder_pb2
from visavis.v1.audio_encoder_pb2_grpc import AudioEncoderServiceStub


@pytest.fixture(scope="module")
def service(valkey: EmbeddedRedis) -> Iterator[ServiceProcess]:
    with service_process("services.audio_encoder", valkey.url, VISAVIS_SLOTS="2") as process:
        yield process


@pytest.fixture
async def stub(service: ServiceProcess) -> AsyncIterator[AudioEncoderServiceStub]:
    async with service.channel() as channel:
        yield AudioEncoderServiceStub(channel)


def config(session_id: str) -> audio_encoder_pb2.EncodeRequest:
    return audio_encoder_pb2.EncodeRequest(config=audio_encoder_pb2.EncodeConfig(session_id=session_id))


def chunk(seed: int, index: int) -> audio_encoder_pb2.EncodeRequest:
    return audio_encoder_pb2.EncodeRequest(chunk=chunk_of(clip(seed), index))


async def encode(stub: AudioEncoderServiceStub, session_id: str, seed: int) -> list[torch.Tensor]:
    """A whole session of three chunks."""
    async with StageStream(stub.Encode(timeout=60)) as stream:
        await stream.send(config(session_id))
        assert (await stream.receive()).ready.model.name == "tiny"
        for index in (1, 2, 3):
            await stream.send(chunk(seed, index))
        answers = [response.chunk for response in await stream.rest()]
    assert [answer.speech.header.chunk_index for answer in answers] == [1, 2, 3]
    return [tensor_from_message(answer.speech.latents) for answer in answers]


async def test_sessions_side_by_side_give_the_bits_of_the_model(
    stub: AudioEncoderServiceStub,
) -> None:
    engine = AudioEncoderEngine(audio_encoder_settings())
    engine.warm_up()
    encoder = engine._loaded.module
    both = await asyncio.gather(encode(stub, "one", 1), encode(stub, "two", 2))
    for seed, latents in zip((1, 2), both, strict=True):
        state = encoder.initial_state()
        samples = torch.from_numpy(clip(seed))
        for index, answer in enumerate(latents, start=1):
            end = 15_360 * index
            expected, state = encoder.encode_chunk(samples[end - 15_360 : end], samples[end : end + 1_280], state)
            assert torch.equal(answer, expected)


@pytest.mark.parametrize("samples", [b"", b"abc", b"\xff" * 4 * 15_360])
async def test_samples_that_are_none_end_the_session(stub: AudioEncoderServiceStub, samples: bytes) -> None:
    bad = chunk(1, 1)
    bad.chunk.samples = samples
    async with StageStream(stub.Encode(timeout=60)) as stream:
        await stream.send(config("bad"))
        await stream.receive()
        await stream.send(bad)
        with pytest.raises(InvalidInput) as caught:
            await stream.receive()
    assert caught.value.field == "chunk.samples"


async def test_a_third_session_is_refused_at_once_and_a_vanished_client_makes_room(
    stub: AudioEncoderServiceStub,
) -> None:
    async with StageStream(stub.Encode(timeout=60)) as first:
        await first.send(config("first"))
        await first.receive()
        async with StageStream(stub.Encode(timeout=60)) as second:
            await second.send(config("second"))
            await second.receive()
            await second.send(chunk(1, 1))
            async with StageStream(stub.Encode(timeout=60)) as third:
                await third.send(config("third"))
                with pytest.raises(CapacityExhausted) as caught:
                    await third.receive()
                assert caught.value.retry_after_seconds > 0
        # The second client has gone in the middle of a chunk.
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert len(await encode_when_free(stub)) == 3


async def encode_when_free(stub: AudioEncoderServiceStub) -> list[torch.Tensor]:
    while True:
        try:
            return await encode(stub, "next", 1)
        except CapacityExhausted:
            await asyncio.sleep(0.02)


async def test_the_service_says_serving(service: ServiceProcess) -> None:
    async with service.channel() as channel:
        health = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="visavis.v1.AudioEncoderService")
        answer = await health.Check(request, timeout=PATIENCE_SECONDS)  # type: ignore[attr-defined]
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_torch_lives_in_the_worker_alone(service: ServiceProcess) -> None:
    assert not maps_torch(service.popen.pid)
    assert maps_torch(service.worker().pid)


def maps_torch(process_id: int) -> bool:
    return "libtorch" in Path(f"/proc/{process_id}/maps").read_text()


async def test_a_lost_worker_ends_the_service(valkey: EmbeddedRedis) -> None:
    with service_process("services.audio_encoder", valkey.url) as doomed:
        async with doomed.channel() as channel:
            stub = AudioEncoderServiceStub(channel)
            async with StageStream(stub.Encode(timeout=60)) as stream:
                await stream.send(config("one"))
                await stream.receive()
                doomed.worker().kill()
                with pytest.raises(WorkerLost):
                    await stream.receive()
        assert await asyncio.to_thread(doomed.popen.wait, 2 * PATIENCE_SECONDS) == 1


def test_wrong_settings_are_named(valkey: EmbeddedRedis) -> None:
    wrong = service_process("services.audio_encoder", valkey.url, VISAVIS_DTYPE="float8")
    with pytest.raises(AssertionError, match="ended with 2"), wrong:
        pass
