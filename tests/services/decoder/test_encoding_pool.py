import threading
from collections.abc import Callable

import pytest

from services.decoder.encoding_pool import EncodingPool
from tests.patience import PATIENCE_SECONDS


@pytest.fixture
def pool() -> EncodingPool[str]:
    return EncodingPool[str](threads=2, capacity=3)


def held(gate: threading.Event, result: str) -> Callable[[], str]:
    def job() -> str:
        assert gate.wait(PATIENCE_SECONDS)
        return result

    return job


def collected(pool: EncodingPool[str], count: int) -> list[str]:
    results: list[str] = []
    while len(results) < count:
        results += [future.result() for _, future in pool.collect(timeout_seconds=PATIENCE_SECONDS)]
    return results


def test_a_session_keeps_its_order_and_another_overtakes_it(pool: EncodingPool[str]) -> None:
    gate = threading.Event()
    pool.open("slow")
    pool.open("fast")
    pool.submit("slow", held(gate, "slow 1"))
    pool.submit("slow", lambda: "slow 2")
    pool.submit("fast", lambda: "fast 1")
    assert (pool.room, pool.is_idle) == (0, False)
    assert collected(pool, 1) == ["fast 1"]
    assert (pool.room, pool.is_idle) == (1, False)
    gate.set()
    assert collected(pool, 2) == ["slow 1", "slow 2"]
    assert (pool.room, pool.is_idle) == (3, True)
    pool.shut_down()


def test_collect_without_timeout_does_not_wait(pool: EncodingPool[str]) -> None:
    gate = threading.Event()
    pool.open("one")
    pool.submit("one", held(gate, "done"))
    assert pool.collect() == []
    gate.set()
    assert collected(pool, 1) == ["done"]
    pool.shut_down()


def test_a_closed_session_is_never_collected_and_frees_its_place(pool: EncodingPool[str]) -> None:
    gate = threading.Event()
    pool.open("gone")
    pool.open("here")
    for _ in range(3):
        pool.submit("gone", held(gate, "never"))
    assert (pool.room, pool.is_idle) == (0, False)
    pool.close("gone")
    pool.close("gone")
    assert (pool.room, pool.is_idle) == (3, True)
    pool.submit("here", lambda: "still works")
    gate.set()
    assert collected(pool, 1) == ["still works"]
    pool.shut_down()


def test_an_encoder_that_fails_is_seen_by_the_collector(pool: EncodingPool[str]) -> None:
    def broken() -> str:
        raise RuntimeError("no such picture")

    pool.open("one")
    pool.submit("one", broken)
    ((session_id, future),) = pool.collect(timeout_seconds=PATIENCE_SECONDS)
    assert session_id == "one"
    assert isinstance(future.exception(), RuntimeError)
    pool.shut_down()
