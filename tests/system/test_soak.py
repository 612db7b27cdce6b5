"""Streams for minutes: memory stays flat, nothing is late for good, nothing stays taken."""

import asyncio
import re
import statistics
import time
import urllib.request

import psutil
import pytest
from redis.asyncio import Redis

from tests.system.parts import RATE_HZ, eventually, family, used_slots, voice
from visavis.bench.resources import tree_rss_bytes
from visavis.cli.local_system import LocalSystem
from visavis.client import AudioFormat, VideoFormat, VisavisClient, paced_packets

ALLOWED_GROWTH = 0.05
# Allocators and caches fill up at first; the soak's minutes count from then.
WARM_SECONDS = 30.0
SAMPLE_SECONDS = 1.0
MONO = AudioFormat.s16(RATE_HZ)


async def live_conversation(client: VisavisClient, avatar_id: str, until: float) -> tuple[int, int]:
    """One session: sentences in real time, most of them interrupted, until the end. Its frames and interruptions."""
    frames = interruptions = 0
    async with client.talk(avatar_id, audio_format=MONO, video_format=VideoFormat.raw(), idle="live") as session:

        async def speak() -> None:
            nonlocal interruptions
            turn = 0
            while time.monotonic() < until:
                turn += 1
                async for packet in paced_packets(voice(1.5, seed=turn)):
                    await session.send(packet)
                if turn % 3:
                    await session.interrupt()
                    interruptions += 1
                else:
                    await session.end_utterance()
                await asyncio.sleep(0.5)
            await session.end()

        speaking = asyncio.create_task(speak())
        async for segment in session:
            frames += len(segment.frames)
        await speaking
    return frames, interruptions


async def short_sessions(client: VisavisClient, avatar_id: str, until: float) -> int:
    """Sessions that come and go, one every second: some end, some are dropped in mid-chunk. Returns how many.

    What ended is kept in Redis for a while, so their rate must not depend on how busy the machine is.
    """
    count = 0
    begin = time.monotonic()
    while time.monotonic() < until:
        await asyncio.sleep(max(begin + count - time.monotonic(), 0))
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
    return count


class Watch:
    """What must not grow: resident memory, open files and tasks of each service, and keys in Redis."""

    def __init__(self, system: LocalSystem) -> None:
        self._roots = {process.name: psutil.Process(process.pid) for process in system.supervisor.processes}
        self._metrics = system.metrics
        self._redis_url = system.redis_url
        self.seen: dict[str, list[float]] = {}

    async def run(self, warm_at: float, until: float) -> None:
        """Looks once a second, from when everything is warm."""
        async with Redis.from_url(self._redis_url) as redis:
            while time.monotonic() < until:
                await asyncio.sleep(SAMPLE_SECONDS)
                if time.monotonic() >= warm_at:
                    # Fences outlive their sessions by ten minutes and then expire.
                    keys = [key async for key in redis.scan_iter(count=1000) if not key.endswith(b":fence")]
                    self._note("keys", len(keys))
                    await asyncio.to_thread(self._look)

    def fifths(self) -> dict[str, list[float]]:
        """By what is watched: the mean of each fifth of the time."""
        result = {}
        for name, values in self.seen.items():
            size = max(1, len(values) // 5)
            result[name] = [statistics.mean(values[start : start + size]) for start in range(0, 5 * size, size)]
        return result

    def _look(self) -> None:
        for name, root in self._roots.items():
            self._note(f"{name} memory", tree_rss_bytes(root))
            self._note(f"{name} files", sum(process.num_fds() for process in family(root.pid)))
        for name, address in self._metrics.items():
            text = urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read().decode()
            tasks = re.search(r"^visavis_event_loop_tasks\S* (\S+)$", text, re.MULTILINE)
            assert tasks is not None
            self._note(f"{name} tasks", float(tasks[1]))

    def _note(self, name: str, value: float) -> None:
        self.seen.setdefault(name, []).append(value)


@pytest.mark.soak
async def test_nothing_grows(system: LocalSystem, client: VisavisClient, avatar_id: str, soak_minutes: float) -> None:
    begin = time.monotonic()
    warm_at = begin + WARM_SECONDS
    until = warm_at + 60 * soak_minutes
    watch = Watch(system)
    async with asyncio.TaskGroup() as group:
        live = [group.create_task(live_conversation(client, avatar_id, until)) for _ in range(2)]
        sessions = group.create_task(short_sessions(client, avatar_id, until))
        group.create_task(watch.run(warm_at, until))
    video_seconds = sum(task.result()[0] for task in live) / 25
    interruptions = sum(task.result()[1] for task in live)
    fifths = watch.fifths()
    # Allocators settle: what counts is whether it still grows in the second half.
    growth = {name: means[-1] / means[2] - 1 for name, means in fifths.items()}
    print(f"{video_seconds:.0f} s of live video, {interruptions} interruptions, {sessions.result()} short sessions")
    for name, means in fifths.items():
        print(f"{name}: {' '.join(f'{mean:.0f}' for mean in means)}, growth {growth[name]:+.1%}")
    assert interruptions > 30 * soak_minutes
    assert sessions.result() > 5 * soak_minutes
    assert {name: found for name, found in growth.items() if found > ALLOWED_GROWTH} == {}

    async def free() -> bool:
        return await used_slots(client) == 0

    assert await eventually(free, 2.0)
