"""Keeps a session's checkpoint in Redis up to date."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from gateway.checkpoint import Checkpoint
from gateway.checkpoint_store import CheckpointStore
from gateway.kept_chunk import KeptChunk
from gateway.metrics import GatewayMetrics
from gateway.resume_rights import HeldRight
from gateway.settings import SessionSettings
from visavis.runtime.errors import LeaseLost, StateStoreUnavailable

logger = logging.getLogger(__name__)


class Checkpointer:
    """`run` writes every `checkpoint_chunks` chunks, after each interruption, and before what is there expires.

    Redis may be away: the session goes on, and the next checkpoint that gets through makes up for it.
    """

    def __init__(
        self,
        store: CheckpointStore,
        right: HeldRight,
        settings: SessionSettings,
        metrics: GatewayMetrics,
        snapshot: Callable[[], Checkpoint],
        fencing_token: Callable[[], int],
    ) -> None:
        """fencing_token: of the generator that serves the session now."""
        self._store = store
        self._right = right
        self._settings = settings
        self._metrics = metrics
        self._snapshot = snapshot
        self._fencing_token = fencing_token
        self._saved: dict[int, KeptChunk] = {}
        self._new_chunks = 0
        self._due = asyncio.Event()

    @property
    def _session_id(self) -> str:
        return self._right.token.session_id

    def chunk_written(self) -> None:
        """The client got another chunk completely."""
        self._new_chunks += 1
        if self._settings.checkpoint_chunks and self._new_chunks >= self._settings.checkpoint_chunks:
            self._due.set()

    def went_back(self) -> None:
        """An interruption went back to a border."""
        self._due.set()

    async def begin(self) -> None:
        """The first checkpoint. Errors: `StateStoreUnavailable`, `LeaseLost`."""
        await self._save(with_chunks=True, expire_seconds=self._lasting_seconds)

    async def run(self) -> None:
        """Until cancelled. Errors: `LeaseLost` when the session was resumed in another stream."""
        while True:
            try:
                async with asyncio.timeout(self._settings.checkpoint_seconds):
                    await self._due.wait()
            except TimeoutError:
                pass
            self._due.clear()
            try:
                with_chunks = bool(self._settings.checkpoint_chunks)
                await self._save(with_chunks=with_chunks, expire_seconds=self._lasting_seconds)
            except StateStoreUnavailable:
                self._metrics.checkpoint_failed()
            except LeaseLost:
                self._metrics.checkpoint_failed()
                await self._right.take_over_token()  # raises when the session is another's

    async def finish(self) -> None:
        """The client is lost, or this gateway goes away: the last checkpoint, kept while the session can be resumed."""
        try:
            await self._save(with_chunks=True, left=True, expire_seconds=self._settings.resume_window_seconds)
        except StateStoreUnavailable:
            self._metrics.checkpoint_failed()
        except LeaseLost:
            logger.info("the session went on elsewhere", extra={"session_id": self._session_id})

    async def leave(self, *, seconds: float) -> None:
        """The session is over: what is in Redis lasts for `seconds` more."""
        try:
            await self._store.expire(self._session_id, self._fencing_token(), self._saved, expire_seconds=seconds)
        except (StateStoreUnavailable, LeaseLost):  # it expires by itself, or is another's
            logger.info("the checkpoint stays until it expires", extra={"session_id": self._session_id})

    @property
    def _lasting_seconds(self) -> float:
        """Two refreshes may fail before a lost gateway's sessions can be resumed for less than the window."""
        return self._settings.resume_window_seconds + 3 * self._settings.checkpoint_seconds

    async def _save(self, *, with_chunks: bool, expire_seconds: float, left: bool = False) -> None:
        checkpoint = replace(self._snapshot(), left=left)
        current = {chunk.chunk_index: chunk for chunk in checkpoint.chunks}
        new = [chunk for index, chunk in current.items() if self._saved.get(index) is not chunk] if with_chunks else []
        removed = [index for index in self._saved if index not in current]
        self._new_chunks = 0
        await self._right.hold(expire_seconds=expire_seconds)
        token = self._fencing_token()
        try:
            byte_count = await self._store.save(
                self._session_id, token, checkpoint, new, removed, expire_seconds=expire_seconds
            )
        except LeaseLost:
            # To a generator that was opened for this stream and has not answered yet, or never did.
            token = await self._right.take_over_token()
            byte_count = await self._store.save(
                self._session_id, token, checkpoint, new, removed, expire_seconds=expire_seconds
            )
        for index in removed:
            del self._saved[index]
        self._saved |= {chunk.chunk_index: chunk for chunk in new}
        self._metrics.checkpoint_written(byte_count)
