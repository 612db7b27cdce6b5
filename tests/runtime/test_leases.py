"""Leases on a real Valkey; test_lease_protocol compares them with a model."""

import asyncio

import pytest

from tests.patience import PATIENCE_SECONDS
from visavis.runtime.errors import LeaseHeld, LeaseLost, StateStoreUnavailable
from visavis.runtime.leases import Lease, LeaseStore, fence_key, lease_key, session_key
from visavis.runtime.redis_connection import RedisClient, connect_redis
from visavis.runtime.settings import RedisSettings


def store_of(redis: RedisClient, *, lease_seconds: float = 60.0) -> LeaseStore:
    return LeaseStore(redis, lease_seconds=lease_seconds, timeout_seconds=PATIENCE_SECONDS)


async def until_free(store: LeaseStore) -> None:
    """Until the session's lease has run out."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await store.current("s1") is not None:  # noqa: ASYNC110  # Redis tells nobody
            await asyncio.sleep(0.02)


async def test_one_holder_at_a_time(redis: RedisClient) -> None:
    store = store_of(redis)
    lease = await store.claim("s1", "g1")
    with pytest.raises(LeaseHeld, match="g1"):
        await store.claim("s1", "g2")
    with pytest.raises(LeaseHeld):
        await store.claim("s1", "g1")
    assert await store.current("s1") == lease
    assert (await store.claim("s2", "g2")).holder == "g2"


async def test_of_many_claims_at_once_one_wins(redis: RedisClient) -> None:
    store = store_of(redis)
    claims = await asyncio.gather(*(store.claim("s1", f"g{number}") for number in range(20)), return_exceptions=True)
    assert sum(isinstance(claim, Lease) for claim in claims) == 1
    assert sum(isinstance(claim, LeaseHeld) for claim in claims) == 19


async def test_an_expired_lease_can_be_claimed_and_its_holder_is_refused(redis: RedisClient) -> None:
    store = store_of(redis)
    stale = await store_of(redis, lease_seconds=0.1).claim("s1", "g1")
    await until_free(store)
    lease = await store.claim("s1", "g2")
    assert lease.token > stale.token
    with pytest.raises(LeaseLost):
        await store.renew(stale)
    assert await store.release(stale) is False
    assert await store.current("s1") == lease


async def test_renewing_keeps_a_lease(redis: RedisClient) -> None:
    store = store_of(redis, lease_seconds=600.0)
    lease = await store.claim("s1", "g1")
    for _ in range(2):
        await redis.pexpire(lease_key("s1"), 60_000)  # as if most of its time had passed
        await store.renew(lease)
        assert 500_000 < await redis.pttl(lease_key("s1")) <= 600_000
    assert await store.current("s1") == lease


async def test_an_expired_lease_that_nobody_claimed_can_be_renewed(redis: RedisClient) -> None:
    store = store_of(redis)
    lease = await store.claim("s1", "g1")
    await redis.delete(lease_key("s1"))
    await store.renew(lease)
    assert await store.current("s1") == lease


async def test_a_released_lease_cannot_be_renewed(redis: RedisClient) -> None:
    store = store_of(redis)
    lease = await store.claim("s1", "g1")
    assert await store.release(lease) is True
    with pytest.raises(LeaseLost):
        await store.renew(lease)
    assert await store.release(lease) is False


async def test_a_lease_is_taken_over_from_the_holder_that_was_named(redis: RedisClient) -> None:
    store = store_of(redis)
    lost = await store.claim("s1", "g1")
    with pytest.raises(LeaseHeld, match="g1"):
        await store.claim("s1", "g2", take_over_token=lost.token - 1)
    successor = await store.claim("s1", "g2", take_over_token=lost.token)
    assert successor.token > lost.token
    assert await store.current("s1") == successor
    with pytest.raises(LeaseLost):
        await store.renew(lost)
    assert await store.release(lost) is False
    with pytest.raises(LeaseHeld, match="g2"):  # who names the old holder comes too late
        await store.claim("s1", "g3", take_over_token=lost.token)


async def test_of_many_who_take_over_one_wins(redis: RedisClient) -> None:
    store = store_of(redis)
    lost = await store.claim("s1", "g0")
    claims = await asyncio.gather(
        *(store.claim("s1", f"g{number}", take_over_token=lost.token) for number in range(1, 20)),
        return_exceptions=True,
    )
    (winner,) = [claim for claim in claims if isinstance(claim, Lease)]
    assert await store.current("s1") == winner
    assert sum(isinstance(claim, LeaseHeld) for claim in claims) == 18


async def write(store: LeaseStore, lease: Lease, value: bytes) -> None:
    await store.write_fenced(lease.session_id, lease.token, values={"note": value}, expire_seconds=30.0)


async def test_what_a_stale_holder_writes_is_refused(redis: RedisClient) -> None:
    store = store_of(redis)
    stale = await store.claim("s1", "g1")
    await write(store, stale, b"of the first")
    successor = await store.claim("s1", "g2", take_over_token=stale.token)
    with pytest.raises(LeaseLost):
        await write(store, stale, b"too late")
    assert await redis.get(session_key("s1", "note")) == b"of the first"
    await write(store, successor, b"of the second")
    assert await redis.get(session_key("s1", "note")) == b"of the second"


async def test_a_last_write_gets_through_after_the_release_until_the_next_claim(redis: RedisClient) -> None:
    store = store_of(redis)
    lease = await store.claim("s1", "g1")
    await store.release(lease)
    await write(store, lease, b"the last")
    assert await redis.get(session_key("s1", "note")) == b"the last"
    await store.claim("s1", "g2")
    with pytest.raises(LeaseLost):
        await write(store, lease, b"too late")


async def test_a_fenced_write_is_whole_keeps_and_removes(redis: RedisClient) -> None:
    store = store_of(redis)
    lease = await store.claim("s1", "g1")
    await store.write_fenced("s1", lease.token, values={"1": b"a", "2": b"b", "3": b"c"}, expire_seconds=60)
    await store.write_fenced(
        "s1", lease.token, values={"4": b"d"}, keep=["3", "none"], remove=["1"], expire_seconds=600
    )
    assert await redis.mget([session_key("s1", name) for name in ("1", "2", "3", "4")]) == [None, b"b", b"c", b"d"]
    assert await redis.pttl(session_key("s1", "2")) <= 60_000
    assert 500_000 < await redis.pttl(session_key("s1", "3")) <= 600_000
    assert 500_000 < await redis.pttl(session_key("s1", "4")) <= 600_000
    await store.claim("s1", "g2", take_over_token=lease.token)
    with pytest.raises(LeaseLost):
        await store.write_fenced("s1", lease.token, values={"2": b"x"}, remove=["3"], expire_seconds=60)
    assert await redis.mget([session_key("s1", name) for name in ("2", "3")]) == [b"b", b"c"]


async def test_a_write_raises_the_fence_of_a_redis_that_forgot_it(redis: RedisClient) -> None:
    store = store_of(redis)
    older = await store.claim("s1", "g1")
    newer = await store.claim("s1", "g2", take_over_token=older.token)
    await redis.flushall()
    await write(store, newer, b"newer")
    with pytest.raises(LeaseLost):
        await write(store, older, b"older")


async def test_tokens_grow_even_when_redis_forgets_everything(redis: RedisClient) -> None:
    store = store_of(redis)
    before = await store.claim("s1", "g1")
    await redis.flushall()
    after = await store.claim("s1", "g2")
    assert after.token > before.token
    with pytest.raises(LeaseLost):
        await store.renew(before)


async def test_after_a_loss_of_data_the_highest_token_wins(redis: RedisClient) -> None:
    store = store_of(redis)
    older = await store.claim("s1", "g1")
    await redis.delete(lease_key("s1"))
    newer = await store.claim("s1", "g2")
    await redis.flushall()
    await store.renew(older)
    await store.renew(newer)
    with pytest.raises(LeaseLost):
        await store.renew(older)
    assert await store.current("s1") == newer


async def test_keys_expire_and_share_a_hash_slot(redis: RedisClient) -> None:
    store = store_of(redis)
    lease = await store.claim("s1", "g1")
    assert (lease_key("s1"), fence_key("s1")) == ("visavis:{s1}:lease", "visavis:{s1}:fence")
    assert 0 < await redis.pttl(lease_key("s1")) <= 60_000
    assert await redis.pttl(fence_key("s1")) > 300_000
    await store.release(lease)
    assert await redis.pttl(fence_key("s1")) > 300_000
    assert sorted(await redis.keys("*")) == [b"visavis:{s1}:fence"]


async def test_an_unreachable_redis_is_told() -> None:
    client = connect_redis(RedisSettings("redis://127.0.0.1:1/0", timeout_seconds=0.5))
    store = LeaseStore(client, lease_seconds=1.0, timeout_seconds=0.5)
    with pytest.raises(StateStoreUnavailable):
        await store.claim("s1", "g1")
    await client.aclose()
