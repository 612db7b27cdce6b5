"""What a session costs the gateway by itself: its processor time and memory in front of stages that answer at once."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import psutil
import redis

from visavis.bench.bundled import CONSENT, bundled_portrait, bundled_speech
from visavis.bench.chunk_messages import Codec
from visavis.bench.load_figures import LoadFigures, load_figures
from visavis.bench.load_plan import LoadPlan
from visavis.bench.load_run import run_load
from visavis.bench.load_tally import LoadTally
from visavis.bench.playout import BUFFER_SECONDS
from visavis.bench.ramp import RampPoint
from visavis.bench.redis_use import RedisUse
from visavis.bench.resources import tree_cpu_seconds, tree_rss_bytes
from visavis.cli.local_system import START_SECONDS, STOP_SECONDS, default_settings, service_environment
from visavis.cli.service_programs import service_command
from visavis.cli.supervisor import Supervisor
from visavis.client import BlockingClient, VideoFormat
from visavis.runtime.embedded_redis import EmbeddedRedis

RAMP_SECONDS: Final = 2.0
_FORMATS: Final = {"raw": VideoFormat.raw(), "jpeg": VideoFormat.jpeg(), "h264": VideoFormat.h264()}


@dataclass(frozen=True, slots=True)
class GatewayCost:
    """One gateway process with so many sessions.

    cpu_seconds_per_session_second: over the plateau, when all sessions run and speak without pause.
    memory_bytes_per_session: growth of its resident memory, from before the first session to the highest.
    redis: what the gateway causes there, checkpoints of the true size included, per second of one session; its memory
    is per session. (Leases are the generators' business and not in it.)
    load: what the clients saw; they and the stages share the machine with the gateway.
    """

    sessions: int
    sizes: str
    codec: str
    cpu_seconds_per_session_second: float
    memory_bytes_per_session: float
    redis: RedisUse
    load: LoadFigures


def measure_gateway(sizes: str, codec: Codec, sessions: int, seconds: float, say: Callable[[str], None]) -> GatewayCost:
    """Starts Valkey, instant stages and one gateway, and stops them again. Raises CommandError."""
    say(f"gateway: {sessions} session(s), {sizes} {codec}")
    with _system(sizes, codec, sessions) as (supervisor, address, redis_url):
        gateway = psutil.Process(supervisor.process("gateway").pid)
        client_of_redis = redis.Redis.from_url(redis_url)
        watch = _PlateauWatch(gateway, client_of_redis, RAMP_SECONDS, RAMP_SECONDS + seconds)
        with BlockingClient(address) as client:
            avatar_id = client.register_avatar(bundled_portrait(), CONSENT, display_name="bench").avatar_id
        plan = LoadPlan(
            address=address,
            tls=None,
            avatar_id=avatar_id,
            ramp=(RampPoint(0, 0), RampPoint(RAMP_SECONDS, sessions), RampPoint(RAMP_SECONDS + seconds, sessions)),
            speech=[bundled_speech()],
            video_format=_FORMATS[codec],
            idle="pause",
            pause_seconds=0,
            interrupts_per_minute=0,
            buffer_seconds=BUFFER_SECONDS,
            processes=max(1, (os.cpu_count() or 1) // 2),
            seed=0,
        )
        tally = run_load(plan, watch.look)
        if tally.stopped:
            raise KeyboardInterrupt
        client_of_redis.close()
        supervisor.check()
    return GatewayCost(
        sessions=sessions,
        sizes=sizes,
        codec=codec,
        cpu_seconds_per_session_second=watch.cpu_seconds / (watch.wall_seconds * sessions),
        memory_bytes_per_session=watch.grown_bytes / sessions,
        redis=watch.redis_use(sessions),
        load=load_figures(tally),
    )


@dataclass(frozen=True, slots=True)
class _Look:
    moment: float
    cpu_seconds: float
    redis: RedisUse


class _PlateauWatch:
    """What a process and a Redis use between two moments of a run, and how much their memory grew."""

    def __init__(self, process: psutil.Process, client_of_redis: redis.Redis, begin: float, end: float) -> None:
        self._process = process
        self._redis = client_of_redis
        self._begin, self._end = begin, end
        self._first: _Look | None = None
        self._last: _Look | None = None
        self._redis_before = RedisUse.of(client_of_redis)
        self._rss_before = tree_rss_bytes(process)
        self._rss_most = self._rss_before

    def look(self, _tally: LoadTally, moment: float) -> None:
        """Called a few times a second."""
        self._rss_most = max(self._rss_most, tree_rss_bytes(self._process))
        if self._begin <= moment <= self._end:
            self._last = _Look(moment, tree_cpu_seconds(self._process), RedisUse.of(self._redis))
            self._first = self._first or self._last

    @property
    def wall_seconds(self) -> float:
        """Between the first and the last look inside."""
        return self._last.moment - self._first.moment if self._first and self._last else float("nan")

    @property
    def cpu_seconds(self) -> float:
        """Of the process in that time."""
        return self._last.cpu_seconds - self._first.cpu_seconds if self._first and self._last else float("nan")

    @property
    def grown_bytes(self) -> int:
        """Of the process, from the beginning to the most."""
        return self._rss_most - self._rss_before

    def redis_use(self, sessions: int) -> RedisUse:
        """Of Redis per second of a session in that time; its memory per session, since the beginning."""
        assert self._first is not None
        assert self._last is not None
        use = self._last.redis.since(self._first.redis)
        session_seconds = self.wall_seconds * sessions
        grown = self._last.redis.since(self._redis_before).memory_bytes
        return RedisUse(use.cpu_seconds / session_seconds, use.received_bytes / session_seconds, grown / sessions)


@contextmanager
def _system(sizes: str, codec: Codec, sessions: int) -> Iterator[tuple[Supervisor, str, str]]:
    settings = replace(default_settings("mini"), environment={"VISAVIS_SLOTS": str(sessions)})
    with (
        tempfile.TemporaryDirectory(prefix="visavis-bench-") as folder,
        EmbeddedRedis() as server,
        Supervisor(Path(folder), stop_seconds=STOP_SECONDS) as supervisor,
    ):
        environment = service_environment(settings, "gateway", server.url)
        command = [sys.executable, "-m", "visavis.bench.instant_stages", "--redis-url", server.url]
        command += ["--sizes", sizes, "--codec", codec, "--slots", str(sessions)]
        supervisor.wait_ready(supervisor.start("stages", command, environment, tier=0), START_SECONDS)
        gateway = supervisor.start("gateway", service_command("gateway"), environment, tier=1)
        address = str(supervisor.wait_ready(gateway, START_SECONDS)["address"])
        yield supervisor, address, server.url
