"""Heartbeats."""

import asyncio
from dataclasses import replace

from tests.patience import PATIENCE_SECONDS
from visavis.runtime.redis_connection import RedisClient
from visavis.runtime.registry import HEARTBEATS_PER_EXPIRY, Registry, StageInstance

GENERATOR = StageInstance(
    stage="generator",
    instance_id="g1",
    address="10.0.0.7:50051",
    slots=4,
    used_slots=1,
    draining=False,
    model_name="tiny",
    model_fingerprint="ab" * 32,
    random_weights=True,
    width=256,
    height=192,
    frame_rate=25,
    compatibility="latents:3x8x8x128",
)


def registry_of(redis: RedisClient, *, heartbeat_seconds: float = 5.0) -> Registry:
    return Registry(redis, heartbeat_seconds=heartbeat_seconds, timeout_seconds=PATIENCE_SECONDS)


async def test_a_heartbeat_is_listed_as_it_was_sent(redis: RedisClient) -> None:
    registry = registry_of(redis)
    await registry.heartbeat(GENERATOR)
    assert await registry.list_instances("generator") == [GENERATOR]
    assert await registry.list_instances("decoder") == []


async def test_the_last_heartbeat_counts(redis: RedisClient) -> None:
    registry = registry_of(redis)
    await registry.heartbeat(GENERATOR)
    later = replace(GENERATOR, used_slots=4, draining=True)
    await registry.heartbeat(later)
    assert await registry.list_instances("generator") == [later]


async def test_who_is_silent_is_gone_and_leaves_the_index(redis: RedisClient) -> None:
    registry = registry_of(redis, heartbeat_seconds=0.05)
    await registry_of(redis, heartbeat_seconds=60.0).heartbeat(replace(GENERATOR, instance_id="g2"))
    await registry.heartbeat(GENERATOR)
    expiry_ms = await redis.pttl("visavis:stage:{generator}:instance:g1")
    assert expiry_ms <= 0.05 * HEARTBEATS_PER_EXPIRY * 1000
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(await registry.list_instances("generator")) > 1:  # noqa: ASYNC110  # Redis tells nobody
            await asyncio.sleep(0.02)
    assert [instance.instance_id for instance in await registry.list_instances("generator")] == ["g2"]
    assert await redis.smembers("visavis:stage:{generator}:instances") == {b"g2"}


async def test_who_leaves_is_gone_at_once(redis: RedisClient) -> None:
    registry = registry_of(redis)
    await registry.heartbeat(GENERATOR)
    await registry.remove("generator", "g1")
    assert await registry.list_instances("generator") == []
    assert await redis.keys("*") == []


async def test_a_heartbeat_of_another_version_is_passed_over(redis: RedisClient) -> None:
    registry = registry_of(redis)
    await registry.heartbeat(GENERATOR)
    await redis.hdel("visavis:stage:{generator}:instance:g1", "slots")
    assert await registry.list_instances("generator") == []


def test_free_slots_of_a_draining_instance_are_none() -> None:
    assert GENERATOR.free_slots == 3
    assert replace(GENERATOR, draining=True).free_slots == 0
    assert replace(GENERATOR, used_slots=5).free_slots == 0
