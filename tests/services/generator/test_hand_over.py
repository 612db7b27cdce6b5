"""Sessions that move between two real generators: drained, frozen, broken off."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from tests.patience import PATIENCE_SECONDS
from tests.services.engine_driver import random_tensor
from tests.services.generator.messages import config, speech
from tests.services.service_process import ServiceProcess, StageStream, service_process
from visavis.runtime.embedded_redis import EmbeddedRedis
from visavis.runtime.errors import LeaseHeld, LeaseLost, SessionMoved, StageUnavailable, VisavisError
from visavis.v1 import chunk_pb2, generator_pb2
from visavis.v1.generator_pb2_grpc import GeneratorServiceStub

SEED = 5
DRAIN_SECONDS = 120


@pytest.fixture(scope="module")
def there(valkey: EmbeddedRedis) -> Iterator[ServiceProcess]:
    with service_process("services.generator", valkey.url, VISAVIS_LEASE_SECONDS="60") as process:
        yield process


@pytest.fixture(scope="module")
def here(valkey: EmbeddedRedis) -> Iterator[ServiceProcess]:
    settings = {"VISAVIS_LEASE_SECONDS": "12", "VISAVIS_DRAIN_SECONDS": str(DRAIN_SECONDS)}
    with service_process("services.generator", valkey.url, **settings) as process:
        yield process


@pytest.fixture(scope="module")
def undisturbed(there: ServiceProcess) -> list[bytes]:
    """The latents of chunks 1 to 8 of a session that stays."""

    async def generate() -> list[bytes]:
        async with opened(there, config("undisturbed", SEED)) as (_, stream):
            return [(await answer(stream, index)).video.latents.data for index in range(1, 9)]

    return asyncio.run(generate())


@asynccontextmanager
async def opened(
    service: ServiceProcess, first: generator_pb2.GenerateConfig
) -> AsyncIterator[tuple[generator_pb2.GenerateReady, StageStream]]:
    """A session's ready and its stream."""
    async with service.channel() as channel, StageStream(GeneratorServiceStub(channel).Generate(timeout=60)) as stream:
        await stream.send(generator_pb2.GenerateRequest(config=first))
        yield (await stream.receive()).ready, stream


async def send(stream: StageStream, index: int, *, epoch: int = 1) -> None:
    await stream.send(generator_pb2.GenerateRequest(speech=speech(index, SEED, epoch=epoch)))


async def answer(stream: StageStream, index: int, *, epoch: int = 1) -> Any:
    await send(stream, index, epoch=epoch)
    chunk = (await stream.receive()).chunk
    assert (chunk.video.header.epoch, chunk.video.header.chunk_index) == (epoch, index)
    return chunk


def from_peer(session_id: str, address: str, token: int) -> generator_pb2.GenerateConfig:
    made = config(session_id, SEED)
    made.resume.peer.address, made.resume.peer.fencing_token = address, token
    return made


def from_replay(session_id: str, latents: list[bytes], border: int, token: int) -> generator_pb2.GenerateConfig:
    """Goes on behind `border`, with the chunks before it replayed."""
    made = config(session_id, SEED)
    made.take_over_token = token
    rewind = made.resume.rewind
    rewind.border.CopyFrom(chunk_pb2.ChunkBorder(epoch=1, chunk_index=border))
    for index in range(max(1, border - 1), border + 1):
        video = random_tensor(0, (3, *made.portrait_latent.shape[1:]))
        video.data = latents[index - 1]
        replayed = chunk_pb2.VideoLatents(header=chunk_pb2.ChunkHeader(epoch=1, chunk_index=index), latents=video)
        rewind.replay.add(speech=speech(index, SEED), video=replayed)
    return made


async def refusal(service: ServiceProcess, first: generator_pb2.GenerateConfig) -> VisavisError:
    with pytest.raises(VisavisError) as caught:
        async with opened(service, first):
            pass
    return caught.value


async def collect(stream: StageStream, responses: list[Any]) -> None:
    while (response := await stream.receive()) is not None:
        responses.append(response)


async def test_a_frozen_generator_is_passed_over_and_refused_when_it_wakes(
    here: ServiceProcess, there: ServiceProcess, undisturbed: list[bytes]
) -> None:
    async with opened(here, config("frozen", SEED)) as (ready, stream):
        latents = [(await answer(stream, index)).video.latents.data for index in (1, 2, 3, 4)]
        os.kill(here.popen.pid, signal.SIGSTOP)
        try:
            stale = from_replay("frozen", latents, 4, ready.fencing_token - 1)
            assert isinstance(await refusal(there, stale), LeaseHeld)
            successor_config = from_replay("frozen", latents, 4, ready.fencing_token)
            async with opened(there, successor_config) as (taken, successor):
                assert taken.fencing_token > ready.fencing_token
                assert taken.border.chunk_index == 4
                # Two blocks, two chunks replayed: exact.
                latents += [(await answer(successor, index)).video.latents.data for index in (5, 6, 7, 8)]
                assert latents == undisturbed
                os.kill(here.popen.pid, signal.SIGCONT)
                with pytest.raises(LeaseLost):
                    async with asyncio.timeout(PATIENCE_SECONDS):
                        await collect(stream, [])
                await answer(successor, 9)
        finally:
            os.kill(here.popen.pid, signal.SIGCONT)


async def test_a_generator_takes_over_from_a_stream_of_its_own_that_was_left_behind(
    there: ServiceProcess, undisturbed: list[bytes]
) -> None:
    async with opened(there, config("same", SEED)) as (ready, left_behind):
        latents = [(await answer(left_behind, index)).video.latents.data for index in (1, 2, 3)]
        async with opened(there, from_replay("same", latents, 3, ready.fencing_token)) as (taken, stream):
            with pytest.raises(LeaseLost):
                await collect(left_behind, [])
            latents.append((await answer(stream, 4)).video.latents.data)
            assert taken.fencing_token > ready.fencing_token
    assert latents == undisturbed[:4]


async def test_a_transfer_that_cannot_be_leaves_the_session_where_it_was(
    here: ServiceProcess, there: ServiceProcess, undisturbed: list[bytes]
) -> None:
    async with opened(here, config("stays", SEED)) as (ready, stream):
        latents = [(await answer(stream, index)).video.latents.data for index in (1, 2)]
        cases = {
            "no such session": from_peer("unknown", here.address, ready.fencing_token),
            "another token": from_peer("stays", here.address, ready.fencing_token + 1),
            "nobody there": from_peer("stays", "127.0.0.1:1", ready.fencing_token),
        }
        for case, first in cases.items():
            assert type(await refusal(there, first)) is StageUnavailable, case
        # A window of a kilobyte: the state is larger, so its sending cannot have ended when the other side dies.
        narrow = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
        async with grpc.aio.insecure_channel(here.address, options=narrow) as channel:
            request = generator_pb2.TransferSessionRequest(session_id="stays", fencing_token=ready.fencing_token)
            call: Any = GeneratorServiceStub(channel).TransferSession(request, timeout=PATIENCE_SECONDS)
            assert (await call.read()).state.border.chunk_index == 2
            call.cancel()
        latents += [(await answer(stream, index)).video.latents.data for index in (3, 4)]
        assert latents == undisturbed[:4]


async def test_a_rewind_goes_back_and_on_from_there(there: ServiceProcess, undisturbed: list[bytes]) -> None:
    async with opened(there, config("rewound", SEED)) as (ready, stream):
        assert ready.replay_chunks == 2
        assert ready.border == chunk_pb2.ChunkBorder(epoch=1, chunk_index=0)
        for index in (1, 2, 3):
            await answer(stream, index)
        for index in (4, 5):
            await send(stream, index)
        border = chunk_pb2.ChunkBorder(epoch=2, chunk_index=2)
        await stream.send(generator_pb2.GenerateRequest(rewind=generator_pb2.GenerateRewind(border=border)))
        await send(stream, 3, epoch=2)
        while (chunk := (await stream.receive()).chunk).video.header.epoch == 1:
            pass  # was on its way when the rewind was sent
        assert chunk.video.header.chunk_index == 3
        assert chunk.video.latents.data == undisturbed[2]
        assert (await answer(stream, 4, epoch=2)).video.latents.data == undisturbed[3]


# The last one: it ends the generator.
async def test_a_drained_generator_hands_its_session_over_bit_for_bit_and_exits(
    here: ServiceProcess, there: ServiceProcess, undisturbed: list[bytes]
) -> None:
    latents = []
    async with opened(here, config("drained", SEED)) as (ready, stream):
        for index in (1, 2, 3):
            latents.append((await answer(stream, index)).video.latents.data)
        here.popen.send_signal(signal.SIGTERM)
        draining = (await stream.receive()).draining
        assert DRAIN_SECONDS / 2 < draining.time_left.ToMilliseconds() / 1000 <= DRAIN_SECONDS
        # It still serves, and what is in progress is answered before the session leaves.
        latents.append((await answer(stream, 4)).video.latents.data)
        await send(stream, 5)
        async with opened(there, from_peer("drained", here.address, ready.fencing_token)) as (moved, successor):
            assert moved.fencing_token > ready.fencing_token
            rest: list[Any] = []
            with pytest.raises(SessionMoved):
                await collect(stream, rest)
            latents += [response.chunk.video.latents.data for response in rest]
            assert moved.border == chunk_pb2.ChunkBorder(epoch=1, chunk_index=len(latents))
            for index in range(len(latents) + 1, 9):
                latents.append((await answer(successor, index)).video.latents.data)
    assert latents == undisturbed
    # It exits when its last session has left.
    assert await asyncio.to_thread(here.popen.wait, DRAIN_SECONDS / 2) == 0
