"""How long a session lasts that nobody uses, or that never ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn

from visavis.runtime.errors import DeadlineMissed
from visavis.v1 import talking_head_pb2
from visavis.v1.talking_head_pb2 import SessionEndReason

# What a client gets to read the rest and `ended`.
READING_SECONDS = 10.0


class SessionLimits:
    """Watches one session from its making on."""

    def __init__(self, *, idle_seconds: float, lifetime_seconds: float) -> None:
        """lifetime_seconds: what is left of it."""
        self._idle_seconds = idle_seconds
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._lifetime_ends_at = self._heard_at + lifetime_seconds
        self._listening = True

    def heard(self, *, listening: bool) -> None:
        """A request came; listening: whether another one may."""
        self._heard_at = self._loop.time()
        self._listening = listening

    async def watch(self, stop: Callable[[SessionEndReason.ValueType], None], *, busy: Callable[[], bool]) -> NoReturn:
        """Call `stop` when a limit is reached; the session should end then.

        busy: whether there is work left of what the client sent; it is not idle then.
        Errors: `DeadlineMissed` when the session still runs `READING_SECONDS` later.
        """
        stop(await self._reached(busy))
        await asyncio.sleep(READING_SECONDS)
        raise DeadlineMissed("a limit ended the session, and the client did not read to its end")

    async def _reached(self, busy: Callable[[], bool]) -> SessionEndReason.ValueType:
        while True:
            now = self._loop.time()
            if now >= self._lifetime_ends_at:
                return talking_head_pb2.SESSION_END_REASON_LIFETIME
            if busy() or not self._listening:
                self._heard_at = now
            idle_at = self._heard_at + self._idle_seconds
            if now >= idle_at:
                return talking_head_pb2.SESSION_END_REASON_IDLE
            await asyncio.sleep(min(idle_at, self._lifetime_ends_at) - now)
