"""Whatever a client sends, it gets a clear status, and the system goes on."""

import asyncio
import io
import statistics
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress

import grpc
import grpc.aio
import numpy as np
import pytest
from PIL import Image

from tests.system.conftest import CONSENT
from tests.system.parts import (
    CHUNK,
    END,
    RATE_HZ,
    audio_of,
    config_of,
    eventually,
    portrait_jpeg,
    raw_talk,
    until_free,
    used_slots,
    voice,
)
from visavis.cli.local_system import LocalSystem
from visavis.client import AudioFormat, CapacityExhausted, Consent, InvalidInput, NotFound, VideoFormat, VisavisClient
from visavis.v1 import media_pb2, talking_head_pb2, talking_head_pb2_grpc

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def large_jpeg() -> bytes:
    """50 megapixels in few bytes."""
    buffer = io.BytesIO()
    Image.new("L", (8000, 6250), 128).save(buffer, "JPEG", quality=30)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "portrait",
    [
        pytest.param(lambda: b"", id="0 bytes"),
        pytest.param(lambda: portrait_jpeg()[:1500], id="truncated"),
        pytest.param(large_jpeg, id="50 megapixels"),
        pytest.param(lambda: b"Dear server, I am not a picture.\n" * 100, id="text file"),
        pytest.param(lambda: bytes(3 * 2**20 + 1), id="over 3 MiB"),
    ],
)
async def test_a_bad_portrait_is_an_invalid_argument(client: VisavisClient, portrait: Callable[[], bytes]) -> None:
    with pytest.raises(InvalidInput) as caught:
        await client.register_avatar(portrait(), CONSENT)
    assert caught.value.code is INVALID
    assert "Traceback" not in str(caught.value)
    assert "/" not in str(caught.value).replace("JPEG/PNG", "")


async def test_an_avatar_needs_consent(client: VisavisClient) -> None:
    for consent in (
        Consent.subject_agreed("", ""),
        Consent(talking_head_pb2.CONSENT_BASIS_UNSPECIFIED, "Ada", "agreed"),
    ):
        with pytest.raises(InvalidInput):
            await client.register_avatar(portrait_jpeg(), consent)


async def test_an_unknown_avatar_is_not_found(client: VisavisClient) -> None:
    with pytest.raises(NotFound):
        async with client.talk("nobody", audio_format=AudioFormat.s16(RATE_HZ)):
            pass
    with pytest.raises(NotFound):
        await client.get_avatar("nobody")


async def test_a_deleted_avatar_is_not_found(client: VisavisClient) -> None:
    avatar = await client.register_avatar(portrait_jpeg(), CONSENT)
    assert avatar.avatar_id in [each.avatar_id async for each in client.list_avatars()]
    await client.delete_avatar(avatar.avatar_id)
    with pytest.raises(NotFound):
        async with client.talk(avatar, audio_format=AudioFormat.s16(RATE_HZ)):
            pass


@pytest.mark.parametrize(
    ("audio_format", "pcm"),
    [
        pytest.param(AudioFormat.s16(RATE_HZ), b"", id="empty audio"),
        pytest.param(AudioFormat.s16(RATE_HZ), b"123", id="odd length"),
        pytest.param(AudioFormat.s16(RATE_HZ, 2), b"123456", id="half a stereo sample"),
        pytest.param(AudioFormat.f32(RATE_HZ), np.full(100, np.nan, "<f4").tobytes(), id="NaN"),
        pytest.param(AudioFormat.f32(RATE_HZ), np.full(100, np.inf, "<f4").tobytes(), id="infinity"),
        pytest.param(AudioFormat.s16(RATE_HZ), bytes(2**20 + 2), id="over 1 MiB"),
    ],
)
async def test_bad_audio_is_an_invalid_argument(
    system: LocalSystem, avatar_id: str, audio_format: AudioFormat, pcm: bytes
) -> None:
    outcome = await raw_talk(system.gateway_address, [config_of(avatar_id, audio_format), audio_of(pcm), END])
    assert outcome.code is INVALID
    assert "audio" in outcome.message


@pytest.mark.parametrize("rate_hz", [0, 1, 7_975, 8_001, 44_110, 96_025, 2**32 - 1])
async def test_an_impossible_sample_rate_is_an_invalid_argument(
    system: LocalSystem, avatar_id: str, rate_hz: int
) -> None:
    outcome = await raw_talk(system.gateway_address, [config_of(avatar_id, AudioFormat.s16(rate_hz))])
    assert outcome.code is INVALID
    assert str(rate_hz) in outcome.message


async def test_impossible_formats_are_invalid_arguments(system: LocalSystem, avatar_id: str) -> None:
    for config in (
        config_of(avatar_id, AudioFormat.s16(RATE_HZ, 3)),
        config_of(avatar_id, AudioFormat(media_pb2.AUDIO_ENCODING_UNSPECIFIED, RATE_HZ, 1)),
        config_of(avatar_id, video=VideoFormat(media_pb2.VIDEO_CODEC_UNSPECIFIED, 0, 0)),
        config_of(avatar_id, video=VideoFormat.jpeg(101)),
        config_of(""),
    ):
        outcome = await raw_talk(system.gateway_address, [config])
        assert outcome.code is INVALID, config


async def test_the_order_of_requests_is_kept(system: LocalSystem, avatar_id: str) -> None:
    config, speech = config_of(avatar_id), audio_of(bytes(640))
    for requests in (
        [speech],
        [END],
        [config, config],
        [config, END, speech],
        [config, talking_head_pb2.TalkRequest()],
        [talking_head_pb2.TalkRequest()],
        [],
    ):
        outcome = await raw_talk(system.gateway_address, requests)
        assert outcome.code is INVALID, requests


async def test_a_message_over_the_limit_is_resource_exhausted(system: LocalSystem, avatar_id: str) -> None:
    outcome = await raw_talk(system.gateway_address, [config_of(avatar_id), audio_of(bytes(5 * 2**20))])
    assert outcome.code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_half_closing_without_end_of_audio_drops_the_session(system: LocalSystem, avatar_id: str) -> None:
    outcome = await raw_talk(system.gateway_address, [config_of(avatar_id), audio_of(bytes(2 * CHUNK))])
    assert outcome.code not in (grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED)
    await until_free(system)


async def test_a_client_without_config_is_not_waited_for_forever(system: LocalSystem) -> None:
    async with grpc.aio.insecure_channel(system.gateway_address) as channel:
        call = talking_head_pb2_grpc.TalkingHeadServiceStub(channel).Talk()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        call.cancel()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_client_gone_in_mid_chunk_frees_its_slots_within_a_second(
    system: LocalSystem, client: VisavisClient, avatar_id: str
) -> None:
    await until_free(system)
    seconds = []
    for _ in range(5):  # a machine that is busy for a moment spoils one of them
        async with client.talk(avatar_id, audio_format=AudioFormat.s16(RATE_HZ)) as session:
            await session.send(voice(20.0).pcm)
            await anext(session.events())

            async def taken() -> bool:
                return await used_slots(system) == 3

            assert await eventually(taken)
        gone_at = time.monotonic()
        await until_free(system)
        seconds.append(time.monotonic() - gone_at)
    assert statistics.median(seconds) < 1.0, seconds


async def test_a_full_server_says_when_to_come_back(system: LocalSystem, client: VisavisClient, avatar_id: str) -> None:
    await until_free(system)
    slots = min(stage.slots for stage in (await client.capacity()).stages)
    async with AsyncExitStack() as stack:
        for _ in range(slots):
            talk = client.talk(avatar_id, audio_format=AudioFormat.s16(RATE_HZ), idle="pause")
            await stack.enter_async_context(talk)
        with pytest.raises(CapacityExhausted) as caught:
            async with client.talk(avatar_id, audio_format=AudioFormat.s16(RATE_HZ)):
                pass
        assert caught.value.retry_after_seconds is not None
        assert caught.value.retry_after_seconds > 0
    await until_free(system)


async def test_after_all_that_the_system_still_talks(client: VisavisClient, avatar_id: str) -> None:
    async with client.talk(avatar_id, audio_format=AudioFormat.s16(RATE_HZ), idle="pause") as session:
        await session.send(voice(1.0).pcm)
        await session.end()
        assert sum([len(segment.frames) async for segment in session]) == 48


async def test_many_clients_that_give_up_leave_nothing_behind(
    system: LocalSystem, client: VisavisClient, avatar_id: str
) -> None:
    async def give_up(after_seconds: float) -> None:
        with suppress(CapacityExhausted):  # an answer too
            async with client.talk(avatar_id, audio_format=AudioFormat.s16(RATE_HZ)) as session:
                await session.send(voice(3.0).pcm)
                await asyncio.sleep(after_seconds)

    await asyncio.gather(*(give_up(0.02 * index) for index in range(12)))
    await until_free(system)
