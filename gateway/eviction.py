"""Ends a session from outside."""

from __future__ import annotations

import asyncio
from typing import NoReturn

from visavis.runtime.errors import VisavisError


class Eviction:
    """Called with an error it ends the session whose task waits here, or will."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        """Set by the session when nothing of it is left."""
        self._error: asyncio.Future[VisavisError] = asyncio.get_running_loop().create_future()

    def __call__(self, error: VisavisError) -> None:
        if not self._error.done():
            self._error.set_result(error)

    async def wait(self) -> NoReturn:
        """Errors: the one it was called with."""
        raise await asyncio.shield(self._error)
