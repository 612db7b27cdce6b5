"""Real services with the tiny preset, two of each, killed and rolled under a running session, and interrupted.

Weights of `tiny` are random: its pictures are close to noise, and one frame differs from the next by a third of the
range of values. So a jump of a face cannot be seen in them. What can: whether a state is the one that was lost, to the
bit or how far from it, as the frames behind it are compared with those of an undisturbed session.
"""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.gateway.gateway_harness import CONSENT, GatewayUnderTest, running_gateway
from tests.gateway.noise_portrait import noise_portrait
from tests.gateway.recorded_talk import RecordedTalk, recorded_talk
from tests.gateway.registration import wait_until_registered
from tests.gateway.strategies import noise_pcm
from tests.gateway.talk_client import LIMIT_SECONDS, LIVE, MONO_16K, PAUSE, frames_of
from tests.services.service_process import ServiceProcess, service_process
from visavis.contract import CHUNK_FRAMES, CHUNK_SAMPLES
from visavis.evaluation.seams import FrameChanges, frame_changes, seam
from visavis.runtime.embedded_redis import EmbeddedRedis
from visavis.v1 import media_pb2, talking_head_pb2
from visavis.v1.media_pb2 import VideoFormat
from visavis.v1.talking_head_pb2 import RegisterAvatarRequest

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

STAGES = ("audio_encoder", "generator", "decoder")
RAW = VideoFormat(codec=media_pb2.VIDEO_CODEC_RAW_RGB)
CHUNK_BYTES = 2 * CHUNK_SAMPLES
CHUNKS = 12
SPEECH = noise_pcm(MONO_16K, CHUNKS * CHUNK_SAMPLES, 5)
# dB, of a generator rebuilt from one chunk in place of the two that make it exact.
REBUILT_PSNR = 55.0
# How much more pictures may change across a border than there in the undisturbed session.
NO_SEAM = 1.02


class Services:
    """Processes by their instance ids; what was killed may end as it does."""

    def __init__(self, redis_url: str, stack: ExitStack) -> None:
        self.redis_url = redis_url
        self.processes: dict[str, ServiceProcess] = {}
        self.undisturbed: tuple[str, list[bytes]] | None = None
        self._stack = stack

    def start(self, stages: list[str]) -> None:
        settings = {"VISAVIS_SLOTS": "4", "VISAVIS_REDIS_TIMEOUT_SECONDS": "30", "VISAVIS_DRAIN_SECONDS": "60"}
        running = [service_process(f"services.{stage}", self.redis_url, **settings) for stage in stages]
        with ThreadPoolExecutor(len(stages)) as pool:
            started = pool.map(lambda each: each.__enter__(), running)
            for stage, context, process in zip(stages, running, started, strict=True):
                self.processes[process.instance_id] = process
                self._stack.callback(process.popen.wait, 60)
                self._stack.callback(process.popen.send_signal, signal.SIGTERM)
                self._stack.callback(_forget, context)
                wait_until_registered(self.redis_url, stage, process.instance_id)

    async def signal_serving(self, gateway: GatewayUnderTest, stage: str, number: signal.Signals) -> ServiceProcess:
        """To the instance that has the session."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while True:
                instances = await gateway.registry.list_instances(stage)
                serving = [i.instance_id for i in instances if i.used_slots and i.instance_id in self.processes]
                # Two: one has not said yet that it is free again.
                if len(serving) == 1:
                    process = self.processes.pop(serving[0])
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
    request = RegisterAvatarRequest(portrait=noise_portrait(), consent=CONSENT)
    return (await gateway.stub.RegisterAvatar(request)).avatar.avatar_id


async def finish(talk: RecordedTalk) -> list[bytes]:
    await talk.end_audio()
    await talk.finish()
    talk.check_order()
    return frames_of(talk.segments)


def psnr(one: bytes, other: bytes) -> float:
    difference = np.frombuffer(one, np.uint8).astype(float) - np.frombuffer(other, np.uint8)
    error = float(np.mean(difference**2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


async def undisturbed(services: Services, gateway: GatewayUnderTest) -> tuple[str, list[bytes]]:
    """An avatar, and every frame of its session with all of `SPEECH`."""
    if services.undisturbed is None:
        avatar_id = await new_avatar(gateway)
        async with recorded_talk(gateway, avatar_id=avatar_id, video_format=RAW) as talk:
            await talk.speak(SPEECH)
            services.undisturbed = avatar_id, await finish(talk)
        assert len(services.undisturbed[1]) == CHUNKS * CHUNK_FRAMES
    return services.undisturbed


def pictures_F3HW(frames: list[bytes]) -> Tensor:
    """From 0 to 1."""
    side = math.isqrt(len(frames[0]) // 3)
    values = np.frombuffer(b"".join(frames), np.uint8).reshape(len(frames), side, side, 3)
    return torch.from_numpy(values.astype(np.float32) / 255).permute(0, 3, 1, 2)


def changes_at(border: int, frames: list[bytes]) -> FrameChanges:
    """Across the border behind chunk `border`, and within the chunks on both sides of it."""
    return frame_changes(pictures_F3HW(frames[CHUNK_FRAMES * (border - 1) - 1 : CHUNK_FRAMES * (border + 1)]))


def largest_step(frames: list[bytes]) -> float:
    """From one frame to the next, of the frames of one chunk."""
    pictures = pictures_F3HW(frames)
    return float((pictures[1:] - pictures[:-1]).abs().mean(dim=(1, 2, 3)).max())


def check_border(what: str, border: int, wanted: list[bytes], frames: list[bytes]) -> str:
    """No jump behind chunk `border`: no larger a step than within the chunks beside it, and none that was not there."""
    end = CHUNK_FRAMES * border
    changes = changes_at(border, frames)
    within = max(largest_step(frames[end - CHUNK_FRAMES : end]), largest_step(frames[end : end + CHUNK_FRAMES]))
    more = seam([changes_at(border, wanted)], [changes]).value
    assert changes.at_borders <= within
    assert more < NO_SEAM
    return (
        f"{what}: {255 * changes.at_borders:.1f} of 255 across the border behind chunk {border},"
        f" {more:.4f} times that of the undisturbed session; within the chunks beside it"
        f" {255 * changes.elsewhere:.1f}, at most {255 * within:.1f}"
    )


async def test_rolled_and_killed_stages_change_no_bit(services: Services) -> None:
    async with (
        running_gateway(services.redis_url, []) as gateway,
        running_gateway(services.redis_url, []) as other_gateway,
    ):
        avatar_id, wanted = await undisturbed(services, gateway)
        # A drained generator hands its state over; encoder and decoder are rebuilt.
        async with recorded_talk(gateway, avatar_id=avatar_id, video_format=RAW) as talk:
            await talk.speak(SPEECH[: 6 * CHUNK_BYTES])
            await talk.until_chunk(2)
            rolled = await services.signal_serving(gateway, "generator", signal.SIGTERM)
            await talk.until_chunk(3)
            await services.signal_serving(gateway, "audio_encoder", signal.SIGKILL)
            await talk.speak(SPEECH[6 * CHUNK_BYTES :])
            await talk.until_chunk(6)
            await services.signal_serving(gateway, "decoder", signal.SIGKILL)
            assert await finish(talk) == wanted
        assert gateway.metric("visavis_gateway_hand_overs_total", stage="generator", kind="exact") == 1
        for stage in ("audio_encoder", "decoder"):
            assert gateway.metric("visavis_gateway_recoveries_total", stage=stage, kind="rebuilt") == 1
        assert await asyncio.to_thread(rolled.popen.wait, LIMIT_SECONDS) == 0
        # A killed generator is rebuilt too, from all the chunks that its state depends on.
        await asyncio.to_thread(services.start, ["generator"])
        async with recorded_talk(gateway, avatar_id=avatar_id, video_format=RAW) as talk:
            await talk.speak(SPEECH)
            await talk.until_chunk(4)
            await services.signal_serving(gateway, "generator", signal.SIGKILL)
            assert await finish(talk) == wanted
        assert gateway.metric("visavis_gateway_recoveries_total", stage="generator", kind="rebuilt") == 1
        # The client goes to another gateway, and back.
        async with recorded_talk(gateway, avatar_id=avatar_id, video_format=RAW) as talk:
            await talk.speak(SPEECH)
            await talk.until_chunk(3, complete=False)
            talk.break_off()
            await talk.resume(other_gateway)
            await talk.until_chunk(6)
            talk.break_off()
            await talk.resume(gateway)
            assert await finish(talk) == wanted


async def test_a_generator_rebuilt_from_too_few_chunks_comes_close(
    services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    """An approximation, as of a model whose chunks one message cannot carry: a gateway that keeps one chunk only."""
    border = 5
    await asyncio.to_thread(services.start, ["generator"])
    async with running_gateway(services.redis_url, [], HISTORY_CHUNKS="1") as gateway:
        avatar_id, wanted = await undisturbed(services, gateway)
        async with recorded_talk(gateway, avatar_id=avatar_id, video_format=RAW) as talk:
            # The beginning of the next chunk is heard ahead; there is too little of it to begin that chunk.
            heard = border * CHUNK_BYTES + CHUNK_BYTES // 2
            await talk.speak(SPEECH[:heard])
            await talk.until_chunk(border)
            await services.signal_serving(gateway, "generator", signal.SIGKILL)
            await talk.speak(SPEECH[heard:])
            frames = await finish(talk)
    errors = [psnr(one, other) for one, other in zip(wanted, frames, strict=True)]
    assert frames[: CHUNK_FRAMES * border] == wanted[: CHUNK_FRAMES * border]
    assert REBUILT_PSNR < min(errors) < math.inf, "close, and not by chance the whole state"
    said = check_border("rebuilt from one chunk", border, wanted, frames)
    different = sum(error < math.inf for error in errors)
    with capsys.disabled():
        print(f"\n{said}; {different} of {len(frames)} frames differ from it, the worst by {min(errors):.1f} dB")


async def test_an_interruption_goes_back_to_the_bit_and_does_not_jump(
    services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    # Speech is the first that a live face shows, however late it comes on a busy machine.
    async with running_gateway(services.redis_url, [], IDLE_START_SECONDS="60") as gateway:
        avatar_id, wanted = await undisturbed(services, gateway)

        async def interrupted(
            idle_behavior: talking_head_pb2.IdleBehavior.ValueType, answer: bytes
        ) -> tuple[int, list[bytes]]:
            """The border, and what a client plays that lets the chunk end which it was playing."""
            async with recorded_talk(
                gateway, avatar_id=avatar_id, video_format=RAW, idle_behavior=idle_behavior
            ) as talk:
                await talk.speak(SPEECH)
                await talk.until_chunk(5)
                await talk.interrupt(5 * CHUNK_SAMPLES // 2)
                border = (await talk.until("interrupted")).interrupted.last_chunk_index
                await talk.speak(answer)
                if not answer:
                    await talk.until_chunk(border + 1)
                await talk.end_audio()
                await talk.finish()
            talk.check_order()
            before, after = (
                frames_of([segment for segment in talk.segments if segment.epoch == epoch]) for epoch in (1, 2)
            )
            return border, before[: CHUNK_FRAMES * border] + after

        # Who says again what was dropped gets what was dropped: nothing is left of what the stages had done ahead.
        border, frames = await interrupted(PAUSE, SPEECH[3 * CHUNK_BYTES :])
        assert border == 3
        assert frames == wanted
        answer = noise_pcm(MONO_16K, 2 * CHUNK_SAMPLES, 6)
        said = []
        for what, behavior, speech in (("cut to an idle face", LIVE, b""), ("cut to an answer", PAUSE, answer)):
            border, frames = await interrupted(behavior, speech)
            assert border == 3
            assert frames[CHUNK_FRAMES * border :] != wanted[CHUNK_FRAMES * border : len(frames)]
            said.append(check_border(what, border, wanted, frames))
        with capsys.disabled():
            print("", *said, sep="\n")
