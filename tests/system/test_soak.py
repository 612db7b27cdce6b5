"""Streams for minutes: memory stays flat, nothing is late for good, nothing stays taken."""

import asyncio
import time

import psutil
import pytest
from redis.asyncio import Redis

from tests.system.parts import RATE_HZ, eventually, family, page, until_free, used_slots, value_on, voice
from visavis.bench.resources import tree_rss_bytes
from visavis.cli.local_system import STAGES, LocalSystem
from visavis.client import AudioFormat, VideoFormat, VisavisClient, paced_packets

ALLOWED_GROWTH = 0.05
# Of what is counted: a pool that opens another connection. What each session leaves is thirty in half a minute.
ALLOWED_MORE = 5
# Of memory, in a soak of one minute: what a gateway that just started still takes, and what Valkey keeps of sessions
# that have ended (half a minute, their fences ten). In a longer soak accordingly less.
ALLOWED_BYTES = 8 << 20
# Allocators and caches fill up at first; the soak's minutes count from when both have passed.
WARM_SECONDS, WARM_SESSIONS = 30.0, 20
SAMPLE_SECONDS = 2.0
LIVE_SESSIONS = 2
MONO = AudioFormat.s16(RATE_HZ)


class Load:
    """What is done to the system until it is `over`; `between` is held by a short session, or to have none."""

    def __init__(self, minutes: float) -> None:
        self.frames = self.interruptions = self.sessions = 0
        self.between = asyncio.Lock()
        self.over = False
        self._minutes = minutes
        self._began = time.monotonic()
        self._until: float | None = None

    @property
    def warm(self) -> bool:
        if self._until is None and time.monotonic() > self._began + WARM_SECONDS and self.sessions >= WARM_SESSIONS:
            self._until = time.monotonic() + 60 * self._minutes
        return self._until is not None

    @property
    def enough(self) -> bool:
        """Of everything: time, interruptions, and sessions that came and went."""
        passed = self._until is not None and time.monotonic() > self._until
        return passed and self.interruptions > 30 * self._minutes and self.sessions > 5 * self._minutes


async def live_conversation(client: VisavisClient, avatar_id: str, load: Load) -> None:
    """One session: sentences in real time, most of them interrupted, until the end."""
    async with client.talk(avatar_id, audio_format=MONO, video_format=VideoFormat.raw(), idle="live") as session:

        async def speak() -> None:
            turn = 0
            while not load.over:
                turn += 1
                async for packet in paced_packets(voice(1.5, seed=turn)):
                    await session.send(packet)
                if turn % 3:
                    await session.interrupt()
                    load.interruptions += 1
                else:
                    await session.end_utterance()
                await asyncio.sleep(0.5)
            await session.end()

        speaking = asyncio.create_task(speak())
        async for segment in session:
            load.frames += len(segment.frames)
        await speaking


async def short_sessions(client: VisavisClient, avatar_id: str, load: Load) -> None:
    """Sessions that come and go, one every second: some end, some are dropped in mid-chunk."""
    begin = time.monotonic()
    while not load.over:
        await asyncio.sleep(max(begin + load.sessions - time.monotonic(), 0))
        async with load.between:
            load.sessions += 1
            count = load.sessions
            codec = (VideoFormat.jpeg(), VideoFormat.h264(), VideoFormat.raw())[count % 3]
            async with client.talk(avatar_id, audio_format=MONO, video_format=codec, idle="pause") as session:
                await session.send(voice(2.0, seed=count).pcm)
                if count % 4:
                    await session.end()
                    async for _ in session:
                        pass
                else:
                    await anext(session.events())


class Watch:
    """What must not grow: resident memory, open files and tasks of each service, and keys in Redis that stay.

    It looks between two short sessions, when only the live ones are there, so that all looks see the same.
    """

    def __init__(self, system: LocalSystem, load: Load) -> None:
        self._system = system
        self._load = load
        self._roots = {process.name: psutil.Process(process.pid) for process in system.supervisor.processes}
        self._seen: dict[str, list[float]] = {}

    async def run(self) -> None:
        """Looks every other second from when everything is warm, and says when it is over."""
        async with Redis.from_url(self._system.redis_url) as redis:
            while not self._load.enough:
                await asyncio.sleep(SAMPLE_SECONDS)
                if self._load.warm:
                    async with self._load.between:
                        assert await eventually(self._live_alone)
                        await asyncio.to_thread(self._look)
                    keys = [key async for key in redis.scan_iter(count=1000)]
                    # What has a session's name expires, and is not there for longer than that.
                    self._note("keys that stay", sum([await redis.pexpiretime(key) == -1 for key in keys]))
        self._load.over = True

    def lowest(self) -> dict[str, tuple[float, float]]:
        """By what is watched: the lowest values of both halves. Memory goes up and down as services give it back."""
        halves = {name: (values[: len(values) // 2], values[len(values) // 2 :]) for name, values in self._seen.items()}
        return {name: (min(first), min(second)) for name, (first, second) in halves.items()}

    async def _live_alone(self) -> bool:
        return await used_slots(self._system) == LIVE_SESSIONS * len(STAGES)

    def _look(self) -> None:
        for name, root in self._roots.items():
            self._note(f"{name} memory", tree_rss_bytes(root))
            self._note(f"{name} files", sum(process.num_fds() for process in family(root.pid)))
        for name in self._system.metrics:
            self._note(f"{name} tasks", value_on(page(self._system, name), "visavis_event_loop_tasks"))

    def _note(self, name: str, value: float) -> None:
        self._seen.setdefault(name, []).append(value)


@pytest.mark.soak
async def test_nothing_grows(system: LocalSystem, client: VisavisClient, avatar_id: str, soak_minutes: float) -> None:
    load = Load(soak_minutes)
    watch = Watch(system, load)
    async with asyncio.TaskGroup() as group:
        for _ in range(LIVE_SESSIONS):
            group.create_task(live_conversation(client, avatar_id, load))
        group.create_task(short_sessions(client, avatar_id, load))
        group.create_task(watch.run())
    print(f"{load.frames / 25:.0f} s of live video, {load.interruptions} interruptions, {load.sessions} short sessions")
    growth = {}
    for name, (first, second) in watch.lowest().items():
        print(f"{name}: {first:.0f} {second:.0f}, growth {second / first - 1:+.1%}")
        more = ALLOWED_BYTES / soak_minutes if name.endswith("memory") else ALLOWED_MORE
        if second > max(first * (1 + ALLOWED_GROWTH), first + more):
            growth[name] = (first, second)
    assert growth == {}
    await until_free(system)
