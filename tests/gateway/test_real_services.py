"""The gateway in front of the three real services as processes, with the tiny preset."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from tests.gateway.gateway_harness import CONSENT, GatewayUnderTest, running_gateway
from tests.gateway.noise_portrait import noise_portrait
from tests.gateway.registration import wait_until_registered
from tests.gateway.strategies import noise_pcm
from tests.gateway.talk_client import LIVE, MONO_16K, eventually, frames_of, talking
from tests.services.service_process import service_process
from visavis.runtime.embedded_redis import EmbeddedRedis
from visavis.v1 import media_pb2
from visavis.v1.media_pb2 import VideoFormat
from visavis.v1.talking_head_pb2 import RegisterAvatarRequest

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

RAW = VideoFormat(codec=media_pb2.VIDEO_CODEC_RAW_RGB)
SPEECH = noise_pcm(MONO_16K, 40_000, 5)
SETTINGS = {"VISAVIS_SLOTS": "2", "VISAVIS_HEARTBEAT_SECONDS": "120", "VISAVIS_REDIS_TIMEOUT_SECONDS": "30"}


@pytest.fixture(scope="module")
def services() -> Iterator[str]:
    """Redis with the three services in its registry."""
    with ExitStack() as stack:
        redis = stack.enter_context(EmbeddedRedis())
        for stage in ("audio_encoder", "generator", "decoder"):
            process = stack.enter_context(service_process(f"services.{stage}", redis.url, **SETTINGS))
            wait_until_registered(redis.url, stage, process.instance_id)
        yield redis.url


@pytest.fixture
async def gateway(services: str) -> AsyncIterator[GatewayUnderTest]:
    async with running_gateway(services, []) as gateway:
        yield gateway


@pytest.fixture
async def avatar_id(gateway: GatewayUnderTest) -> str:
    request = RegisterAvatarRequest(portrait=noise_portrait(), consent=CONSENT)
    return (await gateway.stub.RegisterAvatar(request)).avatar.avatar_id


async def used_in_stages(gateway: GatewayUnderTest, sessions: int) -> bool:
    found = [await gateway.registry.list_instances(stage) for stage in ("audio_encoder", "generator", "decoder")]
    return sum(instance.used_slots for instances in found for instance in instances) == sessions


async def test_the_same_speech_gives_the_same_raw_frames(gateway: GatewayUnderTest, avatar_id: str) -> None:
    runs = []
    for block_bytes in (1 << 17, 1_280):
        async with talking(gateway, avatar_id=avatar_id, video_format=RAW) as stream:
            started = stream.received[0].started
            await stream.speak(SPEECH, block_bytes)
            await stream.end_audio()
            await stream.rest()
            runs.append(frames_of(stream.segments))
            assert b"".join(segment.pcm for segment in stream.segments).startswith(SPEECH)
    assert len(runs[0]) == 72
    assert runs[0] == runs[1]
    assert {len(frame) for frame in runs[0]} == {started.width * started.height * 3}
    assert len(set(runs[0])) > 1, "random weights still move"


async def test_an_interrupted_session_goes_on(gateway: GatewayUnderTest, avatar_id: str) -> None:
    async with talking(gateway, avatar_id=avatar_id) as stream:
        await stream.speak(noise_pcm(MONO_16K, 10 * 15_360, 1))
        await stream.until("segment")
        await stream.interrupt()
        await stream.until("interrupted")
        await stream.speak(SPEECH)
        await stream.end_audio()
        heard = len(stream.segments)
        await stream.rest()
    assert {segment.epoch for segment in stream.segments[heard:]} == {2}


async def test_a_live_face_lives_and_then_speaks(gateway: GatewayUnderTest, avatar_id: str) -> None:
    async with talking(gateway, avatar_id=avatar_id, idle_behavior=LIVE) as stream:
        await stream.until("segment")
        await stream.speak(SPEECH)
        await stream.end_audio()
        await stream.rest()
    kinds = [segment.idle for segment in stream.segments]
    assert kinds[0]
    assert kinds == sorted(kinds, reverse=True)
    assert len({segment.chunk_index for segment in stream.segments if not segment.idle}) == 3


async def test_two_sessions_share_the_services(gateway: GatewayUnderTest, avatar_id: str) -> None:
    async with (
        talking(gateway, avatar_id=avatar_id, seed=1, video_format=RAW) as one,
        talking(gateway, avatar_id=avatar_id, seed=2, video_format=RAW) as two,
    ):
        for stream in (one, two):
            await stream.speak(SPEECH)
            await stream.end_audio()
        await asyncio.gather(one.rest(), two.rest())
    assert len(frames_of(one.segments)) == len(frames_of(two.segments)) == 72
    assert frames_of(one.segments) != frames_of(two.segments)


async def test_a_vanished_client_frees_every_slot_at_once(gateway: GatewayUnderTest, avatar_id: str) -> None:
    """Services say so before their next heartbeat, which may be two minutes away."""
    async with talking(gateway, avatar_id=avatar_id) as stream:
        await stream.speak(SPEECH * 4)
        await stream.until("segment")
        await eventually(lambda: used_in_stages(gateway, 3))
        stream.call.cancel()
        await eventually(lambda: used_in_stages(gateway, 0))
