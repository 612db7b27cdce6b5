"""What the system tests are made of: portraits, speech, raw calls, and waiting for processes."""

import asyncio
import io
import re
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc
import grpc.aio
import numpy as np
import psutil
from PIL import Image, ImageDraw

from visavis.cli.local_system import STAGES, LocalSystem
from visavis.client import AudioFormat, Speech, VideoFormat
from visavis.v1 import talking_head_pb2, talking_head_pb2_grpc

RATE_HZ = 16_000
CHUNK = 15_360
# Every process with one thread, so that results do not depend on the machine. Quick to notice what happens, but not
# so quick that one which stands still for two seconds counts as gone (a heartbeat holds four times as long).
ENVIRONMENT = {
    "VISAVIS_WORKER_THREADS": "1",
    "VISAVIS_SLOTS": "8",
    "VISAVIS_HEARTBEAT_SECONDS": "1",
    "VISAVIS_REDIS_TIMEOUT_SECONDS": "3",
    "VISAVIS_DRAIN_SECONDS": "1",
    "VISAVIS_CONFIG_TIMEOUT_SECONDS": "4",
}
# What happens at once happens in this time, however busy the machine is.
AT_ONCE_SECONDS = 60.0


def portrait_jpeg(size: int = 128) -> bytes:
    """A drawn face."""
    image = Image.new("RGB", (size, size), (120, 150, 190))
    draw = ImageDraw.Draw(image)
    draw.ellipse((size * 0.2, size * 0.1, size * 0.8, size * 0.95), fill=(225, 185, 160))
    draw.ellipse((size * 0.35, size * 0.4, size * 0.42, size * 0.47), fill=(40, 40, 40))
    draw.ellipse((size * 0.58, size * 0.4, size * 0.65, size * 0.47), fill=(40, 40, 40))
    draw.arc((size * 0.38, size * 0.6, size * 0.62, size * 0.75), 20, 160, fill=(150, 60, 60), width=4)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def voice(seconds: float, *, seed: int = 0, rate_hz: int = RATE_HZ) -> Speech:
    """Noise in the rhythm of syllables: int16 [samples, 1]."""
    samples = round(seconds * rate_hz)
    noise = np.random.default_rng(seed).standard_normal(samples) * 4000
    rhythm = np.clip(np.sin(2 * np.pi * 3 * np.arange(samples) / rate_hz), 0, 1)
    return Speech((noise * rhythm).astype(np.int16).reshape(-1, 1), rate_hz)


@dataclass(frozen=True, slots=True)
class TalkOutcome:
    """What a raw `Talk` call gave."""

    responses: list[talking_head_pb2.TalkResponse]
    code: grpc.StatusCode
    message: str


def config_of(
    avatar_id: str, audio: AudioFormat | None = None, video: VideoFormat | None = None
) -> talking_head_pb2.TalkRequest:
    """The first request of a session that renders files."""
    return talking_head_pb2.TalkRequest(
        config=talking_head_pb2.SessionConfig(
            avatar_id=avatar_id,
            audio_format=(audio or AudioFormat.s16(RATE_HZ)).to_message(),
            video_format=(video or VideoFormat.jpeg()).to_message(),
            idle_behavior=talking_head_pb2.IDLE_BEHAVIOR_PAUSE,
        )
    )


def audio_of(pcm: bytes) -> talking_head_pb2.TalkRequest:
    """Speech."""
    return talking_head_pb2.TalkRequest(audio=talking_head_pb2.AudioInput(pcm=pcm))


END = talking_head_pb2.TalkRequest(end_of_audio=talking_head_pb2.EndOfAudio())


async def raw_talk(
    address: str, requests: Sequence[talking_head_pb2.TalkRequest], *, seconds: float = AT_ONCE_SECONDS
) -> TalkOutcome:
    """Sends requests that the SDK would not send, half-closes, and collects what comes."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        call = talking_head_pb2_grpc.TalkingHeadServiceStub(channel).Talk(_each(requests), timeout=seconds)
        responses = []
        try:
            async for response in call:
                responses.append(response)
        except grpc.aio.AioRpcError as error:
            return TalkOutcome(responses, error.code(), error.details() or "")
        finally:
            call.cancel()
        return TalkOutcome(responses, grpc.StatusCode.OK, "")


async def _each(
    requests: Sequence[talking_head_pb2.TalkRequest],
) -> AsyncIterator[talking_head_pb2.TalkRequest]:
    for request in requests:
        yield request


def page(system: LocalSystem, service: str) -> str:
    """The metrics of a service as they are now."""
    url = f"http://{system.metrics[service]}/metrics"
    text: str = urllib.request.urlopen(url, timeout=AT_ONCE_SECONDS).read().decode()
    return text


def value_on(page: str, metric: str) -> float:
    """Of a metric that has one value. AssertionError where there is none."""
    found = re.search(rf"^{metric}(?:{{.*}})? (\S+)$", page, re.MULTILINE)
    assert found is not None, metric
    return float(found[1])


async def used_slots(system: LocalSystem) -> int:
    """Slots in use over all stages, as each says itself."""
    pages = await asyncio.gather(*(asyncio.to_thread(page, system, stage) for stage in STAGES))
    return round(sum(value_on(text, "visavis_used_slots") for text in pages))


async def until_free(system: LocalSystem) -> None:
    """Waits until nobody uses a slot, neither of a stage nor of the gateway."""

    async def free() -> bool:
        gateway = await asyncio.to_thread(page, system, "gateway")
        return await used_slots(system) == 0 and value_on(gateway, "visavis_used_slots") == 0

    assert await eventually(free)


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = AT_ONCE_SECONDS) -> bool:
    """Whether it becomes true; it is asked for so long."""
    deadline = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


def family(pid: int) -> list[psutil.Process]:
    """A process and everything that descends from it."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def survivors(processes: Sequence[psutil.Process], seconds: float = AT_ONCE_SECONDS) -> list[psutil.Process]:
    """Those that still run after so many seconds; does not wait where none does."""
    deadline = time.monotonic() + seconds
    while alive := [process for process in processes if _runs(process)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return alive


def _runs(process: psutil.Process) -> bool:
    """What has ended and nobody has waited for runs no more."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
