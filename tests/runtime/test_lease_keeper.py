"""The lease of a running session, through outages and losses."""

import asyncio
import os
import signal
import time

import pytest

from tests.patience import PATIENCE_SECONDS
from visavis.runtime import lease_keeper
from visavis.runtime.embedded_redis import EmbeddedRedis
from visavis.runtime.errors import LeaseHeld, LeaseLost, VisavisError
from visavis.runtime.lease_keeper import LeaseKeeper
from visavis.runtime.leases import LeaseStore, lease_key
from visavis.runtime.redis_connection import RedisClient, connect_redis
from visavis.runtime.settings import RedisSettings


@pytest.fixture(autouse=True)
def renewed_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases last for a minute, so that none expires while this machine does something else, and are renewed often."""
    monkeypatch.setattr(lease_keeper, "RENEWALS_PER_EXPIRY", 600)


def store_of(redis: RedisClient) -> LeaseStore:
    return LeaseStore(redis, lease_seconds=60.0, timeout_seconds=PATIENCE_SECONDS)


async def test_a_lease_is_kept_while_the_session_runs_and_released_after(redis: RedisClient) -> None:
    store = store_of(redis)
    async with LeaseKeeper(store, "s1", "g1") as keeper:
        for _ in range(2):
            await redis.pexpire(lease_key("s1"), 30_000)  # as if half of its time had passed
            async with asyncio.timeout(PATIENCE_SECONDS - 5):
                while await redis.pttl(lease_key("s1")) <= 30_000:  # noqa: ASYNC110  # Redis tells nobody
                    await asyncio.sleep(0.02)
        assert await store.current("s1") == keeper.lease
        with pytest.raises(LeaseHeld):
            async with LeaseKeeper(store, "s1", "g2"):
                pass
    assert await store.current("s1") is None


async def test_a_lost_lease_is_reported_once(redis: RedisClient) -> None:
    store, reported = store_of(redis), list[VisavisError]()
    async with LeaseKeeper(store, "s1", "g1", reported.append) as keeper:
        successor = await store.claim("s1", "g2", take_over_token=keeper.lease.token)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await keeper.lost.wait()
        await asyncio.sleep(0.25)  # two renewals, if there were any
    assert [type(error) for error in reported] == [LeaseLost]
    assert await store.current("s1") == successor  # not freed by the stale holder
    with pytest.raises(LeaseLost):
        await store.renew(keeper.lease)


async def test_a_restart_of_redis_is_survived(caplog: pytest.LogCaptureFixture) -> None:
    server = EmbeddedRedis()
    await server.start()
    redis = connect_redis(RedisSettings(server.url, timeout_seconds=PATIENCE_SECONDS))
    store = store_of(redis)
    try:
        async with LeaseKeeper(store, "s1", "g1") as keeper:
            await server.stop()  # everything it knew is gone
            async with asyncio.timeout(PATIENCE_SECONDS):
                while "lease not renewed" not in caplog.text:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            await server.start()
            async with asyncio.timeout(PATIENCE_SECONDS):
                while await store.current("s1") != keeper.lease:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            assert not keeper.lost.is_set()
    finally:
        await redis.aclose()
        await server.stop()


@pytest.mark.parametrize("standstill_seconds", [0.0, 0.6])
async def test_leaving_does_not_wait_long_for_a_frozen_redis(
    redis_server: EmbeddedRedis, redis: RedisClient, standstill_seconds: float
) -> None:
    """Also when its time limits are all over at once, as this process stood still meanwhile."""
    assert redis_server.process_id is not None
    store = store_of(redis)
    try:
        async with LeaseKeeper(store, "s1", "g1"):
            os.kill(redis_server.process_id, signal.SIGSTOP)
            store.timeout_seconds = 0.2
            asyncio.get_running_loop().call_later(0.05, time.sleep, standstill_seconds)
            leaving = time.monotonic()
        assert time.monotonic() - leaving < PATIENCE_SECONDS / 2
    finally:
        os.kill(redis_server.process_id, signal.SIGCONT)


async def test_a_claim_that_is_cancelled_under_way_leaves_nothing_behind(
    redis_server: EmbeddedRedis, redis: RedisClient
) -> None:
    store = store_of(redis)
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
