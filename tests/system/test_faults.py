"""Redis or a stage is away, at the start or in mid-stream; the command dies or is stopped. Nothing stays behind."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import psutil
import pytest

from tests.system.conftest import CONSENT
from tests.system.parts import (
    AT_ONCE_SECONDS,
    ENVIRONMENT,
    RATE_HZ,
    eventually,
    family,
    portrait_jpeg,
    survivors,
    voice,
)
from visavis.cli.local_system import LocalSystem, default_settings, service_environment
from visavis.cli.service_programs import service_command
from visavis.cli.supervisor import Supervisor
from visavis.client import AudioFormat, Segment, ServerUnavailable, TalkSession, VisavisClient
from visavis.runtime.embedded_redis import EmbeddedRedis

MONO = AudioFormat.s16(RATE_HZ)


@contextmanager
def gateway_alone(tmp_path: Path, redis_url: str) -> Iterator[Supervisor]:
    """A gateway without stages, ready or not."""
    settings = replace(default_settings("tiny"), environment=ENVIRONMENT)
    with Supervisor(tmp_path / "run", stop_seconds=5) as supervisor:
        environment = service_environment(settings, "gateway", redis_url)
        supervisor.start("gateway", service_command("gateway"), environment, tier=0)
        yield supervisor


def impatient(address: str) -> VisavisClient:
    """A client that takes the first answer."""
    return VisavisClient(address, patience_seconds=0.0)


@asynccontextmanager
async def frozen(pid: int) -> AsyncIterator[None]:
    """A process that answers nothing for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_redis_and_stages_down_at_the_start(tmp_path: Path) -> None:
    with EmbeddedRedis() as redis:
        url = redis.url
        redis.stop_blocking()
        with gateway_alone(tmp_path, url) as supervisor:
            gateway = supervisor.process("gateway")
            await asyncio.sleep(3)
            supervisor.check()
            assert gateway.ready_line() is None
            redis.start_blocking()
            line = await asyncio.to_thread(supervisor.wait_ready, gateway, AT_ONCE_SECONDS)
            async with impatient(str(line["address"])) as client:
                assert (await client.capacity()).slots == 0
                with pytest.raises(ServerUnavailable):
                    await client.register_avatar(portrait_jpeg(), CONSENT)


async def test_a_stage_that_is_away_is_unavailable_until_it_is_back(
    system: LocalSystem, client: VisavisClient, avatar_id: str
) -> None:
    async def generators(count: int) -> bool:
        stages = (await client.capacity()).stages
        return all(stage.instances == count for stage in stages if stage.stage == "generator")

    async with impatient(system.gateway_address) as once, frozen(system.supervisor.process("generator").pid):
        assert await eventually(lambda: generators(0))
        with pytest.raises(ServerUnavailable) as caught:
            async with once.talk(avatar_id, audio_format=MONO):
                pass
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert "generator" in str(caught.value)
    assert await eventually(lambda: generators(1))
    async with client.talk(avatar_id, audio_format=MONO, idle="pause") as session:
        await talk_on(session, 1)


async def talk_on(session: TalkSession, chunks: int) -> None:
    """Speech goes in and its frames come out."""
    await session.send(voice(0.96 * chunks + 0.08).pcm)
    seen = set()
    async for event in session.events():
        if isinstance(event, Segment) and event.last_in_chunk:
            seen.add(event.chunk_index)
            if len(seen) == chunks:
                return


async def test_a_session_outlives_a_short_silence_of_redis(
    system: LocalSystem, client: VisavisClient, avatar_id: str
) -> None:
    valkey = system.supervisor.process("valkey").pid
    async with client.talk(avatar_id, audio_format=MONO, idle="pause") as session:
        await talk_on(session, 2)
        async with frozen(valkey):
            await talk_on(session, 2)
            with pytest.raises(ServerUnavailable):
                async with impatient(system.gateway_address) as once, once.talk(avatar_id, audio_format=MONO):
                    pass
            await asyncio.sleep(1.0)
            await talk_on(session, 2)
        await session.end()
        async for _ in session:
            pass
    assert session.ended is not None

    async def starts() -> bool:
        try:
            async with client.talk(avatar_id, audio_format=MONO):
                return True
        except ServerUnavailable:
            return False

    assert await eventually(starts)


class Up:
    """`visavis up` as a user starts it."""

    def __init__(self, tmp_path: Path) -> None:
        self.run_folder = tmp_path / "run"
        command = [sys.executable, "-m", "visavis.cli", "up", "--preset", "tiny", "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            [*command, "--run-folder", str(self.run_folder)],
            env={**os.environ, **ENVIRONMENT},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("up:"):
                break
        self.family = family(self.process.pid)

    def service(self, module: str) -> psutil.Process:
        """The process that runs a service's module, not its worker."""
        return next(each for each in self.family if each.cmdline()[1:3] == ["-m", module])

    def end(self) -> tuple[int, str]:
        """Its exit code and its errors."""
        _, errors = self.process.communicate(timeout=3 * AT_ONCE_SECONDS)
        return self.process.returncode, errors


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    """A system that is up; whatever a test does to it, it is gone afterwards."""
    up = Up(tmp_path)
    try:
        yield up
    finally:
        up.process.kill()
        up.process.communicate()
        left = survivors(up.family)
        for process in left:
            process.kill()
    assert not left


def test_ctrl_c_stops_everything(up: Up) -> None:
    assert len(up.family) >= 9  # up, Valkey, four services, three workers
    up.process.send_signal(signal.SIGINT)
    code, errors = up.end()
    assert (code, errors.strip()) == (130, "visavis: stopped")
    assert survivors(up.family) == []


def test_a_killed_service_stops_everything_and_is_named(up: Up) -> None:
    up.service("services.generator").kill()
    code, errors = up.end()
    assert code == 1
    assert "generator was killed by SIGKILL" in errors
    assert survivors(up.family) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_nothing_survives_when_up_itself_is_killed(up: Up) -> None:
    up.process.kill()
    assert survivors(up.family) == []
