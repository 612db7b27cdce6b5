"""The lease protocol as a state machine against a model: several generators, gateways that write, time that passes."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.patience import PATIENCE_SECONDS
from visavis.runtime.embedded_redis import EmbeddedRedis
from visavis.runtime.errors import LeaseHeld, LeaseLost
from visavis.runtime.leases import Lease, LeaseStore, lease_key, session_key
from visavis.runtime.redis_connection import RedisClient, connect_redis
from visavis.runtime.settings import RedisSettings

HOLDERS = ("g1", "g2", "g3")
_names = itertools.count()


class LeaseProtocol(RuleBasedStateMachine):
    """Anybody may do anything with any lease that was ever given out; the model says what must come of it."""

    url: ClassVar[str]
    leases: Bundle[Lease] = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.redis: RedisClient = connect_redis(RedisSettings(self.url, timeout_seconds=PATIENCE_SECONDS))
        self.store = LeaseStore(self.redis, lease_seconds=60.0, timeout_seconds=PATIENCE_SECONDS)
        self.session_id = f"protocol-{next(_names)}"
        # What there is: the lease in force, the highest token given out and whether it was released, the value written.
        self.current: Lease | None = None
        self.highest = 0
        self.released = False
        self.value: bytes | None = None
        self.values = itertools.count()

    def teardown(self) -> None:
        self.loop.run_until_complete(self.redis.aclose())
        self.loop.close()

    @rule(target=leases, holder=st.sampled_from(HOLDERS), over=leases, way=st.sampled_from(["named", "below", "free"]))
    def claim_over(self, holder: str, over: Lease, way: str) -> Lease:
        return self._claim(holder, {"named": over.token, "below": over.token - 1, "free": 0}[way])

    @rule(target=leases, holder=st.sampled_from(HOLDERS))
    def claim(self, holder: str) -> Lease:
        return self._claim(holder, 0)

    @rule(target=leases, first=st.sampled_from(HOLDERS), over=leases)
    def race_to_take_over(self, first: str, over: Lease) -> Lease:
        """Two that name the same lease: at most one of them gets the session."""

        async def race() -> list[Lease | BaseException]:
            claims = (self.store.claim(self.session_id, holder, take_over_token=over.token) for holder in (first, "g9"))
            return await asyncio.gather(*claims, return_exceptions=True)

        possible = self.current is None or self.current.token <= over.token
        results = self.loop.run_until_complete(race())
        winners = [result for result in results if isinstance(result, Lease)]
        assert len(winners) == int(possible)
        assert sum(isinstance(result, LeaseHeld) for result in results) == 2 - len(winners)
        return self._note_claim(winners[0]) if winners else over

    @rule(lease=leases)
    def renew(self, lease: Lease) -> None:
        if lease.token == self.highest and not self.released:
            self._do(self.store.renew(lease))
            self.current = lease
        else:
            with pytest.raises(LeaseLost):
                self._do(self.store.renew(lease))

    @rule(lease=leases)
    def release(self, lease: Lease) -> None:
        in_force = lease.token == self.highest and not self.released
        assert self._do(self.store.release(lease)) is in_force
        if in_force:
            self.current, self.released = None, True

    @rule()
    def expire(self) -> None:
        self._do(self.redis.pexpire(lease_key(self.session_id), 0))  # what the server does when the time has come
        self.current = None

    @rule(lease=leases)
    def write(self, lease: Lease) -> None:
        value = str(next(self.values)).encode()
        writing = self.store.write_fenced(self.session_id, lease.token, values={"note": value}, expire_seconds=60.0)
        if lease.token == self.highest:
            self._do(writing)
            self.value = value
        else:
            with pytest.raises(LeaseLost):
                self._do(writing)

    @invariant()
    def redis_is_as_the_model(self) -> None:
        assert self._do(self.store.current(self.session_id)) == self.current
        assert self._do(self.redis.get(session_key(self.session_id, "note"))) == self.value

    def _claim(self, holder: str, take_over_token: int) -> Lease:
        if self.current is not None and self.current.token > take_over_token:
            with pytest.raises(LeaseHeld, match=self.current.holder):
                self._do(self.store.claim(self.session_id, holder, take_over_token=take_over_token))
            return self.current
        return self._note_claim(self._do(self.store.claim(self.session_id, holder, take_over_token=take_over_token)))

    def _note_claim(self, lease: Lease) -> Lease:
        assert lease.token > self.highest + 1, "tokens grow, and leave room for a release between them"
        self.current, self.highest, self.released = lease, lease.token, False
        return lease

    def _do(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)


def test_the_protocol_behaves_like_its_model(redis_server: EmbeddedRedis) -> None:
    LeaseProtocol.url = redis_server.url
    run_state_machine_as_test(LeaseProtocol, settings=settings(max_examples=60, stateful_step_count=25, deadline=None))


async def test_a_lease_that_runs_out_in_real_time_goes_to_the_next_claim(redis: RedisClient) -> None:
    store = LeaseStore(redis, lease_seconds=60.0, timeout_seconds=PATIENCE_SECONDS)
    first = await store.claim("s1", "g1")
    await store.write_fenced("s1", first.token, values={"note": b"1"}, expire_seconds=60.0)
    with pytest.raises(LeaseHeld):
        await store.claim("s1", "g2")
    await LeaseStore(redis, lease_seconds=0.15, timeout_seconds=PATIENCE_SECONDS).renew(first)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await store.current("s1") is not None:  # noqa: ASYNC110  # Redis tells nobody
            await asyncio.sleep(0.02)
    await store.write_fenced("s1", first.token, values={"note": b"2"}, expire_seconds=60.0)  # nobody claimed meanwhile
    second = await store.claim("s1", "g2")
    with pytest.raises(LeaseLost):
        await store.write_fenced("s1", first.token, values={"note": b"3"}, expire_seconds=60.0)
    with pytest.raises(LeaseLost):
        await store.renew(first)
    await store.renew(second)
    assert await redis.get(session_key("s1", "note")) == b"2"
