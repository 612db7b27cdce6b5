"""One server, Sentinel or Cluster by the URL; deadlines."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis.asyncio import Redis, RedisCluster

from tests.patience import PATIENCE_SECONDS
from tests.runtime.processes import wait_until_dead
from visavis.runtime.embedded_redis import EmbeddedRedis
from visavis.runtime.errors import StateStoreUnavailable
from visavis.runtime.redis_connection import RedisClient, connect_redis, redis_reply
from visavis.runtime.settings import RedisSettings

REPOSITORY = Path(__file__).parents[2]


def connect(url: str) -> RedisClient:
    return connect_redis(RedisSettings(url, timeout_seconds=PATIENCE_SECONDS))


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://127.0.0.1:6379/0", Redis),
        ("rediss://user:pass@redis.example:6380/1", Redis),
        ("unix:///run/redis.sock", Redis),
        ("redis+sentinel://a:26379,b/primary/0", Redis),
        ("redis+cluster://127.0.0.1:6379", RedisCluster),
    ],
)
async def test_the_scheme_chooses_the_client(url: str, kind: type) -> None:
    assert isinstance(connect(url), kind)


@pytest.mark.parametrize("url", ["http://x", "redis+foo://x", "redis+sentinel://a:26379", ""])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        connect(url)


async def test_a_frozen_server_does_not_hold_anybody_up(redis_server: EmbeddedRedis, redis: RedisClient) -> None:
    assert redis_server.process_id is not None
    os.kill(redis_server.process_id, signal.SIGSTOP)
    started = time.monotonic()
    try:
        with pytest.raises(StateStoreUnavailable):
            await redis_reply(redis.get("x"), timeout_seconds=0.2)
    finally:
        os.kill(redis_server.process_id, signal.SIGCONT)
    assert time.monotonic() - started < PATIENCE_SECONDS / 2, "the client's own time limit, not this one's"
    assert await redis_reply(redis.get("x"), timeout_seconds=PATIENCE_SECONDS) is None


async def test_a_cancellation_is_never_lost(redis: RedisClient) -> None:
    await redis_reply(redis.ping(), timeout_seconds=PATIENCE_SECONDS)
    for turns in range(1, 12):  # wherever the operation is
        operation = asyncio.create_task(redis_reply(redis.ping(), timeout_seconds=PATIENCE_SECONDS))
        for _ in range(turns):
            await asyncio.sleep(0)
        if operation.done():
            continue
        operation.cancel()
        with pytest.raises(asyncio.CancelledError):
            await operation
    assert await redis_reply(redis.ping(), timeout_seconds=PATIENCE_SECONDS)


async def test_a_restarted_server_is_used_again_without_an_error(tmp_path: Path) -> None:
    async with EmbeddedRedis(data_folder=tmp_path) as server:
        client = connect(server.url)
        await redis_reply(client.set("kept", "yes"), timeout_seconds=PATIENCE_SECONDS)
        await server.stop()
        with pytest.raises(StateStoreUnavailable):
            await redis_reply(client.get("kept"), timeout_seconds=PATIENCE_SECONDS)
        await server.start()
        assert await redis_reply(client.get("kept"), timeout_seconds=PATIENCE_SECONDS) == b"yes"
        await client.aclose()


async def test_stop_ends_the_embedded_server_and_its_folder() -> None:
    server = EmbeddedRedis()
    await server.start()
    assert server.is_running()
    await server.stop()
    await server.stop()
    assert not server.is_running()
    with pytest.raises(StateStoreUnavailable):
        await redis_reply(connect(server.url).get("x"), timeout_seconds=PATIENCE_SECONDS)


async def test_a_taken_port_is_an_error(redis_server: EmbeddedRedis) -> None:
    other = EmbeddedRedis(port=redis_server.port)
    with pytest.raises(RuntimeError, match="port"):
        await other.start()


STARTER = """
import time
from visavis.runtime.embedded_redis import EmbeddedRedis
server = EmbeddedRedis()
server.start_blocking()
print(server.process_id, flush=True)
time.sleep(60)
"""


def test_the_embedded_server_dies_with_a_killed_starter() -> None:
    starter = subprocess.Popen([sys.executable, "-c", STARTER], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    with starter, starter.stdout:
        process_id = int(starter.stdout.readline())
        starter.kill()
        wait_until_dead(process_id)
