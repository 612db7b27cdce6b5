"""Cleanup that cancellation cannot interrupt."""

import asyncio
from collections.abc import Coroutine
from typing import Any

# Strong references: a task that nobody holds can be collected while it runs.
_running: set[asyncio.Task[Any]] = set()


async def run_to_end(cleanup: Coroutine[Any, Any, Any], *, timeout_seconds: float) -> None:
    """Runs `cleanup` to its end, at most `timeout_seconds`, even when the caller is cancelled meanwhile.

    The cancellation is raised again afterwards; an error or timeout of the cleanup is raised if there is none.
    """
    task = asyncio.create_task(_limited(cleanup, timeout_seconds))
    _running.add(task)
    task.add_done_callback(_running.discard)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()  # seen; the cancellation matters more
        raise cancelled
    task.result()


async def _limited(cleanup: Coroutine[Any, Any, Any], timeout_seconds: float) -> None:
    async with asyncio.timeout(timeout_seconds):
        await cleanup
