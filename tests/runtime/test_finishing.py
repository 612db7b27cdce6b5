"""Cleanup runs to its end."""

import asyncio

import pytest

from tests.patience import PATIENCE_SECONDS
from visavis.runtime.finishing import run_to_end


async def test_cleanup_goes_on_through_cancellations_and_then_raises() -> None:
    began, may_end, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def cleanup() -> None:
        began.set()
        await may_end.wait()
        done.set()

    task = asyncio.create_task(run_to_end(cleanup(), timeout_seconds=PATIENCE_SECONDS))
    await began.wait()
    for _ in range(2):
        task.cancel()
        for _ in range(10):  # until it waits again
            await asyncio.sleep(0)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()


async def test_cleanup_has_a_deadline() -> None:
    with pytest.raises(TimeoutError):
        await run_to_end(asyncio.sleep(60), timeout_seconds=0.05)


async def test_an_error_of_the_cleanup_is_raised() -> None:
    async def cleanup() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        await run_to_end(cleanup(), timeout_seconds=PATIENCE_SECONDS)
