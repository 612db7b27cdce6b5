"""Real services with the tiny preset, two of each, that are killed and rolled under a running session."""

from __future__ import annotations

import asyncio
import io
import math
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest
from PIL import Image

from tests.gateway.gateway_harness import CONSENT, GatewayUnderTest, running_gateway
from tests.gateway.recorded_talk import RecordedTalk, recorded_talk
from tests.gateway.strategies import noise_pcm
from tests.gateway.talk_client import MONO_16K, frames_of
from tests.services.service_process import ServiceProcess, service_process
from visavis.runtime.embedded_redis import EmbeddedRedis
from visavis.v1 import media_pb2
from visavis.v1.media_pb2 import VideoFormat
from visavis.v1.talking_head_pb2 import RegisterAvatarRequest

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

STAGES = ("audio_encoder", "generator", "decoder")
RAW = VideoFormat(codec=media_pb2.VIDEO_CODEC_RAW_RGB)
SPEECH = noise_pcm(MONO_16K, 12 * 15_360, 5)


class Services:
    """Processes by their instance ids; what was killed may end as it does."""

    def __init__(self, redis_url: str, stack: ExitStack) -> None:
        self.redis_url = redis_url
        self.processes: dict[str, ServiceProcess] = {}
        self._stack = stack

    def start(self, stages: list[str]) -> None:
        settings = {"VISAVIS_SLOTS": "4", "VISAVIS_HEARTBEAT_SECONDS": "0.5", "VISAVIS_DRAIN_SECONDS": "20"}
        running = [service_process(f"services.{stage}", self.redis_url, **settings) for stage in stages]
        with ThreadPoolExecutor(len(stages)) as pool:
            for context, process in zip(running, pool.map(lambda each: each.__enter__(), running), strict=True):
                self.processes[process.instance_id] = process
                self._stack.callback(process.popen.wait, 60)
                self._stack.callback(process.popen.send_signal, signal.SIGTERM)
                self._stack.callback(_forget, context)

    async def signal_serving(self, gateway: GatewayUnderTest, stage: str, number: signal.Signals) -> ServiceProcess:
        """To the instance that has the session."""
        async with asyncio.timeout(10):
            while True:
                for instance in await gateway.registry.list_instances(stage):
                    if instance.used_slots and instance.instance_id in self.processes:
                        process = self.processes.pop(instance.instance_id)
                        process.popen.send_signal(number)
                        return process
                await asyncio.sleep(0.05)


def _forget(context: object) -> None:
    """Its own end asserts a clean exit, which a killed process does not have."""


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    with ExitStack() as stack:
        redis = stack.enter_context(EmbeddedRedis())
        services = Services(redis.url, stack)
        services.start([stage for stage in STAGES for _ in range(2)])
        yield services


async def new_avatar(gateway: GatewayUnderTest) -> str:
    picture = io.BytesIO()
    Image.effect_noise((96, 80), 60).convert("RGB").save(picture, "JPEG")
    request = RegisterAvatarRequest(portrait=picture.getvalue(), consent=CONSENT)
    return (await gateway.stub.RegisterAvatar(request)).avatar.avatar_id


async def finish(talk: RecordedTalk) -> list[bytes]:
    await talk.end_audio()
    await talk.finish(timeout=60)
    talk.check_order()
    return frames_of(talk.segments)


def psnr(one: bytes, other: bytes) -> float:
    difference = np.frombuffer(one, np.uint8).astype(float) - np.frombuffer(other, np.uint8)
    error = float(np.mean(difference**2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


async def test_rolled_and_killed_stages_change_no_bit(services: Services, capsys: pytest.CaptureFixture[str]) -> None:
    async with (
        running_gateway(services.redis_url, []) as gateway,
        running_gateway(services.redis_url, []) as other_gateway,
    ):
        avatar_id = await new_avatar(gateway)
        async with recorded_talk(gateway, avatar_id=avatar_id, video_format=RAW) as talk:
            await talk.speak(SPEECH)
            wanted = await finish(talk)
        assert len(wanted) == 288
        # A drained generator hands its state over; encoder and decoder are rebuilt exactly.
        async with recorded_talk(gateway, avatar_id=avatar_id, video_format=RAW) as talk:
            await talk.speak(SPEECH[: 12 * 15_360])
            await talk.until_chunk(2)
            rolled = await services.signal_serving(gateway, "generator", signal.SIGTERM)
            await talk.until_chunk(3)
            await services.signal_serving(gateway, "audio_encoder", signal.SIGKILL)
            await talk.speak(SPEECH[12 * 15_360 :])
            await talk.until_chunk(6)
            await services.signal_serving(gateway, "decoder", signal.SIGKILL)
            assert await finish(talk) == wanted
        assert gateway.metric("visavis_gateway_hand_overs_total", stage="generator", kind="exact") == 1
        for stage in ("audio_encoder", "decoder"):
            assert gateway.metric("visavis_gateway_recoveries_total", stage=stage, kind="rebuilt") == 1
        assert await asyncio.to_thread(rolled.popen.wait, 30) == 0
        # A killed generator is rebuilt by replaying: an approximation. The decoder is killed too, in the next session.
        await asyncio.to_thread(services.start, ["generator"])
        async with recorded_talk(gateway, avatar_id=avatar_id, video_format=RAW) as talk:
            await talk.speak(SPEECH)
            await talk.until_chunk(4)
            await services.signal_serving(gateway, "generator", signal.SIGKILL)
            frames = await finish(talk)
        await _report("a killed generator", wanted, frames, capsys)
        # The client goes to another gateway.
        async with recorded_talk(gateway, avatar_id=avatar_id, video_format=RAW) as talk:
            await talk.speak(SPEECH)
            await talk.until_chunk(3, complete=False)
            talk.break_off()
            await talk.resume(other_gateway)
            await talk.until_chunk(6)
            talk.break_off()
            await talk.resume(gateway)
            frames = await finish(talk)
        await _report("two resumptions", wanted, frames, capsys)


async def _report(what: str, wanted: list[bytes], frames: list[bytes], capsys: pytest.CaptureFixture[str]) -> None:
    assert len(frames) == len(wanted)
    errors = [psnr(a, b) for a, b in zip(wanted, frames, strict=True)]
    different = [error for error in errors if error < math.inf]
    with capsys.disabled():
        worst = f"{min(different):.1f} dB" if different else "none"
        print(f"\n{what}: {len(different)} of {len(frames)} frames differ from the undisturbed run, worst {worst}")
