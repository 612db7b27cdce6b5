"""Streams for minutes: memory stays flat, nothing is late for good, nothing stays taken."""

import asyncio
import time
from collections.abc import Mapping

import psutil
import pytest

from tests.system.parts import RATE_HZ, eventually, used_slots, voice
from visavis.bench.resources import tree_rss_bytes
from visavis.cli.local_system import LocalSystem
from visavis.client import AudioFormat, VideoFormat, VisavisClient, paced_packets

ALLOWED_GROWTH = 0.05
# Allocators and caches fill up at first; the soak's minutes count from then.
WARM_SECONDS = 30.0
SAMPLE_SECONDS = 1.0
MONO = AudioFormat.s16(RATE_HZ)


async def live_conversation(client: VisavisClient, avatar_id: str, until: float) -> int:
    """One session: a sentence in real time, a pause, again, until the end. Returns its frames."""
    frames = 0
    async with client.talk(avatar_id, audio_format=MONO, video_format=VideoFormat.raw(), idle="live") as session:

        async def speak() -> None:
            turn = 0
            while time.monotonic() < until:
                turn += 1
                async for packet in paced_packets(voice(3.0, seed=turn)):
                    await session.send(packet)
                await session.end_utterance()
                if turn % 3 == 0:
                    await session.interrupt()
                await asyncio.sleep(2.0)
            await session.end()

        speaking = asyncio.create_task(speak())
        async for segment in session:
            frames += len(segment.frames)
        await speaking
    return frames


async def short_sessions(client: VisavisClient, avatar_id: str, until: float) -> int:
    """Sessions that come and go: some end, some are dropped in mid-chunk. Returns how many."""
    count = 0
    while time.monotonic() < until:
        count += 1
        codec = (VideoFormat.jpeg(), VideoFormat.h264(), VideoFormat.raw())[count % 3]
        async with client.talk(avatar_id, audio_format=MONO, video_format=codec, idle="pause") as session:
            await session.send(voice(2.0, seed=count).pcm)
            if count % 4:
                await session.end()
                async for _ in session:
                    pass
            else:
                await anext(session.events())
        await asyncio.sleep(0.3)
    return count


async def watch_memory(system: LocalSystem, warm_at: float, until: float) -> dict[str, list[int]]:
    """Resident memory by service, from when it is warm."""
    roots = {process.name: psutil.Process(process.pid) for process in system.supervisor.processes}
    seen: dict[str, list[int]] = {name: [] for name in roots}
    while time.monotonic() < until:
        await asyncio.sleep(SAMPLE_SECONDS)
        if time.monotonic() >= warm_at:
            for name, root in roots.items():
                seen[name].append(tree_rss_bytes(root))
    return seen


def growth(seen: Mapping[str, list[int]]) -> dict[str, float]:
    """By service: the mean of the last fifth over that of the first fifth, less one."""

    def mean(values: list[int]) -> float:
        return sum(values) / len(values)

    result = {}
    for name, values in seen.items():
        fifth = max(1, len(values) // 5)
        result[name] = mean(values[-fifth:]) / mean(values[:fifth]) - 1
    return result


@pytest.mark.soak
async def test_memory_stays_flat(
    system: LocalSystem, client: VisavisClient, avatar_id: str, soak_minutes: float
) -> None:
    begin = time.monotonic()
    warm_at = begin + WARM_SECONDS
    until = warm_at + 60 * soak_minutes
    async with asyncio.TaskGroup() as group:
        live = group.create_task(live_conversation(client, avatar_id, until))
        sessions = group.create_task(short_sessions(client, avatar_id, until))
        memory = group.create_task(watch_memory(system, warm_at, until))
    video_seconds = live.result() / 25
    print(f"{video_seconds:.0f} s of live video, {sessions.result()} short sessions, growth {growth(memory.result())}")
    assert video_seconds > 0.75 * (until - begin)  # interruptions drop some
    assert sessions.result() > 5 * soak_minutes
    assert {name: found for name, found in growth(memory.result()).items() if found > ALLOWED_GROWTH} == {}

    async def free() -> bool:
        return await used_slots(client) == 0

    assert await eventually(free, 2.0)
