"""The lease of a running session, through outages and losses."""

import asyncio
import os
import signal

import pytest

from visavis.runtime.embedded_redis import EmbeddedRedis
from visavis.runtime.errors import LeaseHeld, LeaseLost, VisavisError
from visavis.runtime.lease_keeper import LeaseKeeper
from visavis.runtime.leases import LeaseStore, lease_key
from visavis.runtime.redis_connection import RedisClient, connect_redis
from visavis.runtime.settings import RedisSettings


def store_of(redis: RedisClient, *, lease_seconds: float = 0.3) -> LeaseStore:
    return LeaseStore(redis, lease_seconds=lease_seconds, timeout_seconds=0.5)


async def test_a_lease_is_kept_while_the_session_runs_and_released_after(redis: RedisClient) -> None:
    store = store_of(redis)
    async with LeaseKeeper(store, "s1", "g1") as keeper:
        await asyncio.sleep(0.6)
        assert await store.current("s1") == keeper.lease
        with pytest.raises(LeaseHeld):
            async with LeaseKeeper(store, "s1", "g2"):
                pass
    assert await store.current("s1") is None


async def test_a_lost_lease_is_reported_once(redis: RedisClient) -> None:
    store, reported = store_of(redis), list[VisavisError]()
    async with LeaseKeeper(store, "s1", "g1", reported.append) as keeper:
        await redis.delete(lease_key("s1"))
        successor = await store.claim("s1", "g2")
        async with asyncio.timeout(1):
            await keeper.lost.wait()
        await asyncio.sleep(0.2)
    assert [type(error) for error in reported] == [LeaseLost]
    assert await store.current("s1") in (successor, None)  # expired or held, but not freed by the stale holder
    with pytest.raises(LeaseLost):
        await store.renew(keeper.lease)


async def test_a_restart_of_redis_is_survived() -> None:
    server = EmbeddedRedis()
    await server.start()
    redis = connect_redis(RedisSettings(server.url, timeout_seconds=0.5))
    store = store_of(redis)
    try:
        async with LeaseKeeper(store, "s1", "g1") as keeper:
            await server.stop()  # everything it knew is gone
            await asyncio.sleep(0.5)
            await server.start()
            await asyncio.sleep(0.5)
            assert not keeper.lost.is_set()
            assert await store.current("s1") == keeper.lease
    finally:
        await redis.aclose()
        await server.stop()


async def test_leaving_does_not_wait_long_for_a_frozen_redis(redis_server: EmbeddedRedis, redis: RedisClient) -> None:
    assert redis_server.process_id is not None
    try:
        async with asyncio.timeout(2):
            async with LeaseKeeper(store_of(redis), "s1", "g1"):
                os.kill(redis_server.process_id, signal.SIGSTOP)
    finally:
        os.kill(redis_server.process_id, signal.SIGCONT)


async def test_a_claim_that_is_cancelled_under_way_leaves_nothing_behind(
    redis_server: EmbeddedRedis, redis: RedisClient
) -> None:
    store = store_of(redis, lease_seconds=60.0)
    await redis.ping()
    assert redis_server.process_id is not None
    keeper = LeaseKeeper(store, "s1", "g1")
    os.kill(redis_server.process_id, signal.SIGSTOP)
    try:
        entering = asyncio.create_task(keeper.__aenter__())
        await asyncio.sleep(0.1)
        entering.cancel()
        await asyncio.sleep(0.1)
    finally:
        os.kill(redis_server.process_id, signal.SIGCONT)
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert await store.current("s1") is None
