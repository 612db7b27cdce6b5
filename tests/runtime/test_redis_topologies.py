"""Everything that is kept in Redis, through Cluster and Sentinel: real servers, one node each."""

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.avatar_store import AvatarStore, StoredAvatar
from gateway.checkpoint_store import CheckpointStore
from gateway.resume_rights import ResumeRights
from tests.gateway.test_checkpoint import FIRST_STATE, kept, read
from tests.patience import PATIENCE_SECONDS
from tests.reserved_port import reserved_port
from tests.runtime.test_registry import GENERATOR
from visavis.runtime.embedded_redis import EmbeddedRedis, server_program
from visavis.runtime.errors import LeaseHeld, LeaseLost, NotFound
from visavis.runtime.leases import LeaseStore, lease_key
from visavis.runtime.redis_connection import RedisClient, connect_redis, redis_reply
from visavis.runtime.registry import Registry
from visavis.runtime.settings import RedisSettings
from visavis.v1.talking_head_pb2 import Avatar
from visavis.v1.tensor_pb2 import Tensor


@asynccontextmanager
async def running(folder: Path, port: int, *arguments: str) -> AsyncIterator[None]:
    """The server program with these arguments, once its port answers."""
    process = subprocess.Popen([server_program(), *arguments], cwd=folder, stdout=subprocess.DEVNULL)  # noqa: ASYNC220
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not answers(port):  # noqa: ASYNC110  # another process: there is nothing to wait on
                await asyncio.sleep(0.02)
        yield
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def say(port: int, command: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(f"{command}\r\n".encode())
        return connection.recv(65536)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[RedisClient]:
    client = connect_redis(RedisSettings(url, timeout_seconds=PATIENCE_SECONDS))
    try:
        yield client
    finally:
        await client.aclose()


async def use(redis: RedisClient) -> None:
    """Everything that services and gateway do with Redis."""
    await use_leases_and_registry(redis)
    await use_resume_rights(redis)
    await use_checkpoints(redis)
    await use_avatars(redis)


async def use_leases_and_registry(redis: RedisClient) -> None:
    store = LeaseStore(redis, lease_seconds=60.0, timeout_seconds=PATIENCE_SECONDS)
    lease = await store.claim("s1", "g1")
    with pytest.raises(LeaseHeld):
        await store.claim("s1", "g2")
    await store.renew(lease)
    await redis_reply(redis.delete(lease_key("s1")), timeout_seconds=PATIENCE_SECONDS)
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
    registry = Registry(redis, heartbeat_seconds=5.0, timeout_seconds=PATIENCE_SECONDS)
    await registry.heartbeat(GENERATOR)
    assert await registry.list_instances("generator") == [GENERATOR]
    await registry.remove("generator", GENERATOR.instance_id)
    assert await registry.list_instances("generator") == []
    assert await redis_reply(redis.ping(), timeout_seconds=PATIENCE_SECONDS)


async def use_resume_rights(redis: RedisClient) -> None:
    """Two streams after one another; the first is refused from then on."""
    leases = LeaseStore(redis, lease_seconds=60.0, timeout_seconds=PATIENCE_SECONDS)
    rights = ResumeRights(redis, leases)
    first = rights.begin("s2")
    assert not await rights.knows(first.token)
    await first.hold(expire_seconds=60)
    assert await rights.knows(first.token)
    assert await first.take_over_token() == 0
    lease = await leases.claim("s2", "g1")
    second = await rights.take(first.token, expire_seconds=60)
    assert await second.take_over_token() == lease.token
    with pytest.raises(LeaseLost):
        await first.hold(expire_seconds=60)
    with pytest.raises(LeaseLost):
        await first.take_over_token()
    assert await rights.knows(first.token), "until the client has shown that it has the second one"
    await second.confirm()
    assert [await rights.knows(each.token) for each in (first, second)] == [False, True]
    with pytest.raises(NotFound):
        await rights.take(first.token, expire_seconds=60)


async def use_checkpoints(redis: RedisClient) -> None:
    """Written under the fence, read back whole, moved on by a chunk, and removed."""
    leases = LeaseStore(redis, lease_seconds=60.0, timeout_seconds=PATIENCE_SECONDS)
    store = CheckpointStore(redis, leases)
    token = (await leases.claim("s3", "g1")).token
    earlier = read(FIRST_STATE)
    assert await store.load("s3") is None
    await store.save("s3", token, earlier, earlier.chunks, [], expire_seconds=60)
    assert await store.load("s3") == earlier
    assert not await store.left("s3")
    later = replace(earlier, last_written=4, chunks=(kept(3), kept(4)), left=True)
    await store.save("s3", token, later, [kept(4)], [2], expire_seconds=60)
    assert await store.load("s3") == later
    assert await store.left("s3")
    with pytest.raises(LeaseLost):
        await store.save("s3", token - 2, earlier, earlier.chunks, [], expire_seconds=60)
    await store.expire("s3", token, [3, 4], expire_seconds=60)
    assert await store.load("s3") == later
    await store.expire("s3", token, [3, 4], expire_seconds=0)
    assert await store.load("s3") is None


async def use_avatars(redis: RedisClient) -> None:
    """Three, listed by pages of two, and deleted."""
    store = AvatarStore(redis, timeout_seconds=PATIENCE_SECONDS)
    avatars = [Avatar(avatar_id=f"a{number}", display_name="A") for number in range(3)]
    for number, avatar in enumerate(avatars):
        avatar.create_time.FromSeconds(1_790_000_000 + number)
        stored = StoredAvatar(avatar, Tensor(shape=[1], data=b"1234"), b"thumbnail")
        await store.save(stored)
        assert await store.load(avatar.avatar_id) == stored
    first = await store.list_page(2, "")
    second = await store.list_page(2, first.next_page_token)
    assert [first.avatars, second.avatars, second.next_page_token] == [avatars[:2], avatars[2:], ""]
    for avatar in avatars:
        await store.delete(avatar.avatar_id)
        with pytest.raises(NotFound):
            await store.load(avatar.avatar_id)
    assert (await store.list_page(2, "")).avatars == []


async def test_a_cluster(tmp_path: Path) -> None:
    with reserved_port() as port, reserved_port() as bus_port:
        options = ("--port", str(port), "--bind", "127.0.0.1", "--cluster-enabled", "yes", "--save", "")
        async with running(tmp_path, port, *options, "--cluster-port", str(bus_port)):
            assert say(port, "CLUSTER ADDSLOTSRANGE 0 16383").startswith(b"+OK")
            async with asyncio.timeout(PATIENCE_SECONDS):
                while b"cluster_state:ok" not in say(port, "CLUSTER INFO"):  # noqa: ASYNC110  # nothing tells of it
                    await asyncio.sleep(0.05)
            async with connected(f"redis+cluster://127.0.0.1:{port}") as redis:
                await use(redis)


async def test_a_primary_found_by_sentinel(tmp_path: Path, redis_server: EmbeddedRedis) -> None:
    with reserved_port() as port:
        configuration = tmp_path / "sentinel.conf"
        configuration.write_text(f"port {port}\nsentinel monitor primary 127.0.0.1 {redis_server.port} 1\n")
        async with (
            running(tmp_path, port, str(configuration), "--sentinel"),
            connected(f"redis+sentinel://127.0.0.1:{port}/primary/0") as redis,
        ):
            await redis.flushall()  # the server is shared by the tests of this folder
            await use(redis)
