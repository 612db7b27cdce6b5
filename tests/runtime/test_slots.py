"""Admission."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.patience import PATIENCE_SECONDS
from visavis.runtime.errors import CapacityExhausted, Draining, VisavisError
from visavis.runtime.slots import Slot, SlotPool


@given(st.integers(1, 4), st.lists(st.one_of(st.just("claim"), st.integers(0, 5)), max_size=40))
def test_never_more_sessions_than_slots(slots: int, actions: list[str | int]) -> None:
    pool = SlotPool(slots, retry_after_seconds=2.0)
    taken: list[Slot] = []
    names = (f"s{number}" for number in itertools.count())
    for action in actions:
        if action == "claim" and len(taken) < slots:
            taken.append(pool.claim(next(names)))
        elif action == "claim":
            with pytest.raises(CapacityExhausted) as refusal:
                pool.claim(next(names))
            assert refusal.value.retry_after_seconds == 2.0
        elif isinstance(action, int) and action < len(taken):
            slot = taken.pop(action)
            slot.free()
            slot.free()
        assert pool.used_slots == len(taken)


def test_leaving_the_block_frees_the_slot_once() -> None:
    pool = SlotPool(1, retry_after_seconds=1.0)
    with pool.claim("s1") as slot:
        slot.free()
        with pool.claim("s2"):
            pass
    assert pool.used_slots == 0


def test_the_streams_of_a_session_share_its_slot() -> None:
    pool = SlotPool(1, retry_after_seconds=1.0)
    evicted: list[str] = []
    left_behind = pool.claim("s1", lambda error: evicted.append("left behind"))
    resumed = pool.claim("s1", lambda error: evicted.append("resumed"))
    assert pool.used_slots == 1
    pool.evict_all(Draining("bye"))
    assert sorted(evicted) == ["left behind", "resumed"]
    for slot in (left_behind, resumed):
        with pytest.raises(CapacityExhausted):
            pool.claim("s2")
        slot.free()
    assert pool.used_slots == 0


def test_every_change_is_announced() -> None:
    pool = SlotPool(2, retry_after_seconds=1.0)
    for change in (lambda: pool.claim("s1"), pool.drain, lambda: pool.limit(1)):
        pool.changed.clear()
        change()
        assert pool.changed.is_set()
    assert pool.slots == 1


def test_draining_refuses_and_evicts() -> None:
    pool = SlotPool(2, retry_after_seconds=1.0)
    evicted: list[VisavisError] = []
    pool.claim("s1", evicted.append)
    pool.claim("s2")
    pool.drain()
    for session_id in ("s1", "s3"):
        with pytest.raises(Draining):
            pool.claim(session_id)
    pool.evict_all(Draining("bye"))
    assert len(evicted) == 1


async def test_idle_is_when_the_last_slot_is_free() -> None:
    pool = SlotPool(2, retry_after_seconds=1.0)
    first, second = pool.claim("s1"), pool.claim("s2")
    idle = asyncio.create_task(pool.wait_idle())
    first.free()
    await asyncio.sleep(0)
    assert not idle.done()
    second.free()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await idle
