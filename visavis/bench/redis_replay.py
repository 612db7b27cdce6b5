"""How much of exactly that traffic one Redis takes: the commands that were seen, over and over, as fast as it goes."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Final

import redis
from redis.exceptions import ResponseError

from visavis.bench.redis_monitor import SentCommand
from visavis.bench.redis_use import RedisUse
from visavis.runtime.embedded_redis import EmbeddedRedis

CONNECTIONS: Final = 32
# Fencing tokens are microseconds of the day they were drawn on; in a replay every claim is newer than the renewals that
# were seen. So all of them become the largest number that Lua's arithmetic holds exactly, and renewals are accepted.
_TOKEN: Final = re.compile(rb"\d{16}")
_NEWEST_TOKEN: Final = b"9007199254740990"
# What says something about its own connection, blocks, or ends the server.
_NOT_REPLAYED: Final = frozenset(
    {"CLIENT", "HELLO", "AUTH", "SELECT", "MONITOR", "SUBSCRIBE", "UNSUBSCRIBE", "PSUBSCRIBE", "INFO", "SHUTDOWN"}
)


@dataclass(frozen=True, slots=True)
class ReplayFigures:
    """One Valkey under the traffic that sessions caused.

    operations_per_second: commands answered, each connection sending one at a time. cpu_share: of a core, that the
    server took meanwhile. cpu_seconds_per_operation: its processor time for one; its inverse is what a whole core would
    answer. errors: answers that were errors, 0 in a replay that means something.
    """

    operations: int
    errors: int
    seconds: float
    operations_per_second: float
    cpu_share: float
    cpu_seconds_per_operation: float


def replayable(commands: Sequence[SentCommand]) -> list[tuple[bytes, ...]]:
    """The commands of the services, ready to be sent again."""
    return [
        tuple(_NEWEST_TOKEN if _TOKEN.fullmatch(word) else word for word in command.words)
        for command in commands
        if command.name not in _NOT_REPLAYED
    ]


def replay(commands: Sequence[tuple[bytes, ...]], seconds: float, processes: int) -> ReplayFigures:
    """Sends them in order, over and over, from so many processes to a fresh Valkey of its own."""
    with EmbeddedRedis() as server:
        client = redis.Redis.from_url(server.url)
        before, begin = RedisUse.of(client), time.monotonic()
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            running = [
                pool.submit(replay_share, server.url, commands, time.monotonic() + seconds, share)
                for share in range(processes)
            ]
            counts = [each.result() for each in running]
        wall = time.monotonic() - begin
        cpu_seconds = RedisUse.of(client).since(before).cpu_seconds
        client.close()
    operations = sum(count for count, _, _ in counts)
    # Processes that still start send nothing; the server's own time for that stretch is next to nothing too.
    busy_seconds = max(busy for _, _, busy in counts)
    return ReplayFigures(
        operations=operations,
        errors=sum(errors for _, errors, _ in counts),
        seconds=wall,
        operations_per_second=operations / busy_seconds,
        cpu_share=cpu_seconds / busy_seconds,
        cpu_seconds_per_operation=cpu_seconds / operations,
    )


def replay_share(url: str, commands: Sequence[tuple[bytes, ...]], until: float, share: int) -> tuple[int, int, float]:
    """One process with `CONNECTIONS` connections, each with one command on its way.

    Returns answers, errors among them, and the seconds that it took.
    """
    client = redis.Redis.from_url(url)
    connections: list[Any] = [client.connection_pool.get_connection() for _ in range(CONNECTIONS)]
    packed = [connections[0].pack_command(*_for_share(command, share)) for command in commands]
    answers = errors = position = 0
    begin = time.monotonic()
    while answers == 0 or time.monotonic() < until:
        batch = [packed[(position + offset) % len(packed)] for offset in range(CONNECTIONS)]
        position += CONNECTIONS
        for connection, command in zip(connections, batch, strict=True):
            connection.send_packed_command(command)
        for connection in connections:
            errors += _failed(connection)
        answers += CONNECTIONS
    seconds = time.monotonic() - begin
    client.close()
    return answers, errors, seconds


def _failed(connection: Any) -> bool:
    try:
        connection.read_response()
    except ResponseError:
        return True
    return False


def _for_share(command: tuple[bytes, ...], share: int) -> tuple[bytes, ...]:
    """Each process has keys of its own, so that they do not take each other's leases."""
    return tuple(word.replace(b"visavis:", b"visavis%d:" % share) for word in command)
