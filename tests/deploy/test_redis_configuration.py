"""A real Valkey takes the shipped configuration; the documented users may do what the code does, and no more."""

from __future__ import annotations

import re
import socket
import subprocess
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError

from gateway.avatar_store import AvatarStore
from tests.deploy.containers import containers
from tests.reserved_port import reserved_port
from tools.kustomize import REPOSITORY
from visavis.runtime.embedded_redis import server_program
from visavis.runtime.leases import LeaseStore
from visavis.runtime.redis_connection import connect_redis
from visavis.runtime.registry import Registry, StageInstance
from visavis.runtime.settings import RedisSettings

COMPONENT = REPOSITORY / "deploy/k8s/components/redis"
INSTANCE = StageInstance(
    stage="generator",
    instance_id="a",
    address="10.0.0.1:50052",
    slots=1,
    used_slots=0,
    draining=False,
    model_name="tiny",
    model_fingerprint="",
    random_weights=True,
    width=64,
    height=64,
    frame_rate=25,
    compatibility="",
)


def documented_users() -> str:
    """users.acl as docs/operations.md has it, with the password `secret`."""
    page = (REPOSITORY / "docs/operations.md").read_text()
    block = re.search(r"cat > users.acl <<END\n(.*?)\n +END\n", page, re.S)
    assert block is not None
    return textwrap.dedent(block[1]).replace("$PASSWORD", "secret") + "\n"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("redis")
    (folder / "users.acl").write_text(documented_users())
    with reserved_port() as free:
        text = (COMPONENT / "valkey.conf").read_text()
        for theirs, ours in (("/etc/valkey/acl", folder), ("/data", folder), ("port 6379", f"port {free}")):
            assert theirs in text
            text = text.replace(theirs, str(ours))
        (folder / "valkey.conf").write_text(text)
        command = [str(server_program()), str(folder / "valkey.conf"), "--bind", "127.0.0.1"]
        with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
            try:
                wait_for(free, server, folder / "log")
                yield free
            finally:
                server.terminate()


def wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def client(port: int, user: str, password: str) -> Redis:
    return Redis(host="127.0.0.1", port=port, username=user, password=password)


async def test_the_services_user_may_do_what_the_services_do(port: int) -> None:
    redis = connect_redis(RedisSettings(f"redis://visavis:secret@127.0.0.1:{port}/0", 60.0))
    try:
        registry = Registry(redis, heartbeat_seconds=60.0, timeout_seconds=60.0)
        await registry.heartbeat(INSTANCE)
        assert await registry.list_instances("generator") == [INSTANCE]
        await registry.remove("generator", "a")
        leases = LeaseStore(redis, lease_seconds=60.0, timeout_seconds=60.0)
        lease = await leases.claim("s1", "a")
        await leases.renew(lease)
        await leases.release(lease)
        avatars = AvatarStore(redis, timeout_seconds=60.0)
        assert (await avatars.list_page(10, "")).avatars == []
    finally:
        await redis.aclose()


def test_every_command_of_the_code_is_allowed(port: int) -> None:
    """What scripts call is checked like what clients call."""
    text = "".join(
        path.read_text() for folder in ("visavis", "gateway") for path in (REPOSITORY / folder).rglob("*.py")
    )
    commands = sorted(
        set(re.findall(r"redis\.call\('(\w+)'", text)) | {"EVAL", "HGETALL", "HGET", "SMEMBERS", "ZRANGEBYLEX"}
    )
    assert "HSET" in commands
    with client(port, "visavis", "secret") as redis:
        for command in commands:
            described = str(redis.execute_command("COMMAND", "INFO", command))
            assert "@" in described, command
            assert "@dangerous" not in described, command
            assert "@admin" not in described, command


@pytest.mark.parametrize("command", [("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*"), ("SET", "other:key", "1")])
def test_the_services_user_may_not_do_more(port: int, command: tuple[str, ...]) -> None:
    with client(port, "visavis", "secret") as redis, pytest.raises(NoPermissionError):
        redis.execute_command(*command)


def test_nobody_else_gets_in(port: int) -> None:
    with client(port, "visavis", "wrong") as redis, pytest.raises(AuthenticationError):
        redis.ping()
    with Redis(host="127.0.0.1", port=port) as redis, pytest.raises(AuthenticationError):
        redis.ping()


def test_the_probes_user_may_ping_and_no_more(port: int) -> None:
    (redis_container,) = [each for each in containers("cpu") if each.workload == "redis"]
    command = redis_container.spec["readinessProbe"]["exec"]["command"][-1]
    found = re.search(r"--user (\w+) --pass (\S+) ping", command)
    assert found is not None
    with client(port, found[1], found[2]) as redis:
        assert redis.execute_command("PING")
        with pytest.raises(NoPermissionError):
            redis.get("visavis:x")
