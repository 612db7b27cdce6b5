"""A real Valkey for the whole run, emptied for each test; workers with the tone engine."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.patience import PATIENCE_SECONDS
from tests.runtime.tone_engine import Gate, ToneSettings
from visavis.runtime.embedded_redis import EmbeddedRedis
from visavis.runtime.redis_connection import RedisClient, connect_redis
from visavis.runtime.settings import RedisSettings, WorkerSettings
from visavis.runtime.worker import Worker

ENGINE = "tests.runtime.tone_engine:create_engine"

StartWorker = Callable[..., Awaitable[Worker]]


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
async def redis(redis_server: EmbeddedRedis) -> AsyncIterator[RedisClient]:
    client = connect_redis(RedisSettings(redis_server.url, timeout_seconds=PATIENCE_SECONDS))
    await client.flushall()
    yield client
    await client.aclose()


def worker_settings(
    *,
    threads: int = 1,
    processors: tuple[int, ...] = (),
    start_timeout_seconds: float = 60.0,
    open_timeout_seconds: float = PATIENCE_SECONDS,
    call_timeout_seconds: float = PATIENCE_SECONDS,
    max_pending_calls: int = 2,
    hang_seconds: float = 300.0,
    kill_seconds: float = 300.0,
    silence_seconds: float = 300.0,
) -> WorkerSettings:
    return WorkerSettings(
        threads=threads,
        processors=processors,
        start_timeout_seconds=start_timeout_seconds,
        open_timeout_seconds=open_timeout_seconds,
        call_timeout_seconds=call_timeout_seconds,
        max_pending_calls=max_pending_calls,
        hang_seconds=hang_seconds,
        kill_seconds=kill_seconds,
        silence_seconds=silence_seconds,
    )


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """What a gated engine waits for."""
    return Gate(tmp_path / "gate")


@pytest.fixture
async def start_worker() -> AsyncIterator[StartWorker]:
    async with AsyncExitStack() as stack:

        async def start(engine: ToneSettings | None = None, settings: WorkerSettings | None = None) -> Worker:
            worker = Worker(ENGINE, engine or ToneSettings(), settings or worker_settings(), stage="audio_encoder")
            stack.push_async_callback(worker.stop)
            await worker.start()
            return worker

        yield start
