import asyncio

import pytest

from tests.patience import PATIENCE_SECONDS
from visavis.runtime.redis_connection import RedisClient, redis_reply


@pytest.mark.parametrize("rounds", range(1, 8))
async def test_a_cancelled_operation_never_goes_on(redis: RedisClient, rounds: int) -> None:
    """Wherever the cancellation meets it: background tasks that survived theirs kept a service from draining."""
    await redis_reply(redis.ping(), timeout_seconds=PATIENCE_SECONDS)
    task = asyncio.create_task(redis_reply(redis.eval("return 1", 0), timeout_seconds=PATIENCE_SECONDS))
    for _ in range(rounds):
        await asyncio.sleep(0)
    if task.done():
        assert task.result() == 1
        return
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await redis_reply(redis.ping(), timeout_seconds=PATIENCE_SECONDS)
