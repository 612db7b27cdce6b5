"""What it costs to look up the living instances of a stage, which a gateway does for every new session."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from visavis.bench.instant_stages import stage_instance
from visavis.runtime.embedded_redis import EmbeddedRedis
from visavis.runtime.redis_connection import RedisClient, connect_redis, redis_reply
from visavis.runtime.registry import Registry
from visavis.runtime.settings import RedisSettings

INSTANCES: Final = (1, 10, 100, 1000)
_LOOKUPS_SECONDS: Final = 1.0
_LONG_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class PlacementCost:
    """One lookup of one stage with so many instances: wall time, and processor time of the gateway and of Redis."""

    instances: int
    wall_seconds: float
    gateway_cpu_seconds: float
    redis_cpu_seconds: float


def measure_placement(say: Callable[[str], None]) -> list[PlacementCost]:
    """Against a Valkey of its own, with 1 to 1000 instances."""
    with EmbeddedRedis() as server:
        return asyncio.run(_measure(server.url, say))


async def _measure(url: str, say: Callable[[str], None]) -> list[PlacementCost]:
    redis = connect_redis(RedisSettings(url, 10.0))
    registry = Registry(redis, heartbeat_seconds=_LONG_SECONDS, timeout_seconds=10.0)
    found = []
    registered = 0
    for instances in INSTANCES:
        say(f"placement: {instances} instance(s)")
        for number in range(registered, instances):
            instance = stage_instance("generator", f"10.0.{number // 250}.{number % 250}:50052", 16, 512)
            await registry.heartbeat(replace(instance, instance_id=f"generator-{number:04}"))
        registered = instances
        found.append(await _lookups(redis, registry, instances))
    await redis.aclose()
    return found


async def _lookups(redis: RedisClient, registry: Registry, instances: int) -> PlacementCost:
    redis_before, cpu_before, begin = await _redis_cpu(redis), time.process_time(), time.perf_counter()
    count = 0
    while time.perf_counter() - begin < _LOOKUPS_SECONDS:
        listed = await registry.list_instances("generator")
        assert len(listed) == instances
        count += 1
    wall = time.perf_counter() - begin
    return PlacementCost(
        instances=instances,
        wall_seconds=wall / count,
        gateway_cpu_seconds=(time.process_time() - cpu_before) / count,
        redis_cpu_seconds=(await _redis_cpu(redis) - redis_before) / count,
    )


async def _redis_cpu(redis: RedisClient) -> float:
    operation: Any = redis.info("cpu")
    found: Any = await redis_reply(operation, timeout_seconds=10.0)
    return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])
