"""Leases and heartbeats through Cluster and Sentinel: real servers, one node each."""

import asyncio
import contextlib
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.runtime.test_registry import GENERATOR
from visavis.runtime.embedded_redis import EmbeddedRedis, server_program
from visavis.runtime.errors import LeaseHeld, LeaseLost
from visavis.runtime.leases import LeaseStore, lease_key
from visavis.runtime.redis_connection import RedisClient, connect_redis, redis_reply
from visavis.runtime.registry import Registry
from visavis.runtime.settings import RedisSettings


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def running(folder: Path, port: int, *arguments: str) -> AsyncIterator[None]:
    """The server program with these arguments, once its port answers."""
    process = subprocess.Popen([server_program(), *arguments], cwd=folder, stdout=subprocess.DEVNULL)  # noqa: ASYNC220
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            await asyncio.sleep(0.02)
        yield
    finally:
        process.kill()
        process.wait()


def say(port: int, command: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(f"{command}\r\n".encode())
        return connection.recv(65536)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[RedisClient]:
    client = connect_redis(RedisSettings(url, timeout_seconds=2.0))
    try:
        yield client
    finally:
        await client.aclose()


async def use(redis: RedisClient) -> None:
    """Everything the runtime does with Redis."""
    store = LeaseStore(redis, lease_seconds=60.0, timeout_seconds=2.0)
    lease = await store.claim("s1", "g1")
    with pytest.raises(LeaseHeld):
        await store.claim("s1", "g2")
    await store.renew(lease)
    await redis_reply(redis.delete(lease_key("s1")), timeout_seconds=2.0)
    later = await store.claim("s1", "g2")
    with pytest.raises(LeaseLost):
        await store.renew(lease)
    assert await store.current("s1") == later
    later = await store.claim("s1", "g3", take_over_token=later.token)
    await store.write_fenced(
        "s1", later.token, values={"a": b"1", "b": b"2"}, keep=["c"], remove=["d"], expire_seconds=9
    )
    with pytest.raises(LeaseLost):
        await store.write_fenced("s1", lease.token, values={"a": b"3"}, expire_seconds=9)
    assert await store.release(later)
    registry = Registry(redis, heartbeat_seconds=5.0, timeout_seconds=2.0)
    await registry.heartbeat(GENERATOR)
    assert await registry.list_instances("generator") == [GENERATOR]
    await registry.remove("generator", GENERATOR.instance_id)
    assert await registry.list_instances("generator") == []
    assert await redis_reply(redis.ping(), timeout_seconds=2.0)


async def test_a_cluster(tmp_path: Path) -> None:
    port = free_port()
    options = ("--port", str(port), "--bind", "127.0.0.1", "--cluster-enabled", "yes", "--save", "")
    async with running(tmp_path, port, *options, "--cluster-port", str(free_port())):
        assert say(port, "CLUSTER ADDSLOTSRANGE 0 16383").startswith(b"+OK")
        async with asyncio.timeout(10):
            while b"cluster_state:ok" not in say(port, "CLUSTER INFO"):  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(0.05)
        async with connected(f"redis+cluster://127.0.0.1:{port}") as redis:
            await use(redis)


async def test_a_primary_found_by_sentinel(tmp_path: Path, redis_server: EmbeddedRedis) -> None:
    port = free_port()
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(f"port {port}\nsentinel monitor primary 127.0.0.1 {redis_server.port} 1\n")
    async with (
        running(tmp_path, port, str(configuration), "--sentinel"),
        connected(f"redis+sentinel://127.0.0.1:{port}/primary/0") as redis,
    ):
        await use(redis)
