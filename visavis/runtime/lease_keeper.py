"""Holds a session's lease for as long as the session runs; the scope of a generator's sessions."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

from visavis.runtime.errors import LeaseLost, StateStoreUnavailable, VisavisError
from visavis.runtime.finishing import run_to_end
from visavis.runtime.leases import Lease, LeaseStore
from visavis.runtime.stage import CompleteReady, SessionScope, StageSession

logger = logging.getLogger(__name__)

RENEWALS_PER_EXPIRY = 3


class LeaseKeeper:
    """`async with LeaseKeeper(...) as keeper:` claims, renews in the background, releases at the end.

    Entering raises LeaseHeld or StateStoreUnavailable. A Redis that cannot be reached afterwards is tolerated without
    limit: sessions outlive an outage, and that is safe because not the expiry but the fencing token decides. If
    somebody else claims the session meanwhile, the next renewal that gets through is refused: then `lost` is set and
    `on_lost` is called, once, and the holder must stop serving the session.
    """

    def __init__(
        self,
        store: LeaseStore,
        session_id: str,
        holder: str,
        on_lost: Callable[[VisavisError], None] | None = None,
        *,
        take_over_token: int = 0,
    ) -> None:
        self.lost = asyncio.Event()
        self._store = store
        self._session_id = session_id
        self._holder = holder
        self._on_lost = on_lost
        self._take_over_token = take_over_token
        self._lease: Lease | None = None
        self._renewing: asyncio.Task[None] | None = None

    @property
    def lease(self) -> Lease:
        """The claimed lease; only inside the `async with`."""
        assert self._lease is not None, "the keeper has not been entered"
        return self._lease

    async def __aenter__(self) -> Self:
        claiming = asyncio.create_task(
            self._store.claim(self._session_id, self._holder, take_over_token=self._take_over_token)
        )
        try:
            self._lease = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            # The claim may get through after all; without this it would block the session until it expires.
            await self._run_to_end(self._undo(claiming))
            raise
        self._renewing = asyncio.create_task(self._renew_until_lost(self._lease))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._renewing is not None
        self._renewing.cancel()
        await self._run_to_end(self._finish(self._renewing))

    async def _renew_until_lost(self, lease: Lease) -> None:
        reachable = True
        while True:
            await asyncio.sleep(self._store.lease_seconds / RENEWALS_PER_EXPIRY)
            try:
                await self._store.renew(lease)
            except StateStoreUnavailable:
                if reachable:
                    logger.warning("lease not renewed, trying on", extra={"session_id": self._session_id})
                reachable = False
            except LeaseLost as error:
                self._report(error)
                return
            else:
                reachable = True

    def _report(self, error: LeaseLost) -> None:
        logger.warning("lease lost", extra={"session_id": self._session_id})
        self.lost.set()
        if self._on_lost is not None:
            self._on_lost(error)

    async def _run_to_end(self, cleanup: Coroutine[Any, Any, None]) -> None:
        with contextlib.suppress(TimeoutError):  # then Redis cannot be reached, and the lease expires
            await run_to_end(cleanup, timeout_seconds=2 * self._store.timeout_seconds)

    async def _finish(self, renewing: asyncio.Task[None]) -> None:
        await asyncio.wait([renewing])
        if not renewing.cancelled() and renewing.exception() is not None:
            logger.error("lease renewal failed", exc_info=renewing.exception(), extra={"session_id": self._session_id})
        # An unreachable Redis frees the session by itself when the lease expires.
        with contextlib.suppress(StateStoreUnavailable):
            await self._store.release(self.lease)

    async def _undo(self, claiming: asyncio.Task[Lease]) -> None:
        with contextlib.suppress(VisavisError):
            await self._store.release(await claiming)


def leased_sessions(store: LeaseStore, holder: str) -> SessionScope:
    """The scope for `Stage.serve_session` that holds each session's lease.

    Fills `generator_id` and `fencing_token` of the ready message; a lost lease ends the session with LeaseLost.
    """

    @asynccontextmanager
    async def scope(session: StageSession) -> AsyncIterator[CompleteReady]:
        async with LeaseKeeper(store, session.session_id, holder, session.abandon) as keeper:

            def complete(ready: Any) -> None:
                ready.generator_id = holder
                ready.fencing_token = keeper.lease.token

            yield complete

    return scope
