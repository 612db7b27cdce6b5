"""Checkpoints in Redis: a few small values per session, under its fence, that expire by themselves."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from gateway.checkpoint import (
    CONFIG,
    STATE,
    Checkpoint,
    checkpoint_state,
    chunk_indices,
    chunk_names,
    chunk_values,
    read_checkpoint,
    was_left,
)
from gateway.kept_chunk import KeptChunk
from visavis.runtime.leases import LeaseStore, session_key
from visavis.runtime.redis_connection import RedisClient, redis_reply

logger = logging.getLogger(__name__)


class CheckpointStore:
    """Every method raises `StateStoreUnavailable` when Redis cannot be reached, is full or cannot be written."""

    def __init__(self, redis: RedisClient, leases: LeaseStore) -> None:
        self._redis = redis
        self._leases = leases

    async def save(
        self,
        session_id: str,
        token: int,
        checkpoint: Checkpoint,
        new: Collection[KeptChunk],
        removed: Collection[int],
        *,
        expire_seconds: float,
    ) -> int:
        """Write the state, the config and the chunks in `new`; keep those of the checkpoint that are there already.

        token: of the lease that the session's generator holds. removed: indices of chunks to forget.
        Gives the number of bytes written. Errors: `LeaseLost` when a later claim of the session exists.
        """
        values = {STATE: checkpoint_state(checkpoint), CONFIG: checkpoint.config.SerializeToString()}
        for chunk in new:
            values |= chunk_values(chunk)
        every = [name for chunk in checkpoint.chunks for name in chunk_names(chunk.chunk_index)]
        await self._leases.write_fenced(
            session_id,
            token,
            values=values,
            keep=[name for name in every if name not in values],
            remove=[name for index in removed for name in chunk_names(index)],
            expire_seconds=expire_seconds,
        )
        return sum(len(value) for value in values.values())

    async def load(self, session_id: str) -> Checkpoint | None:
        """The last checkpoint; None where there is none, or what is there is none.

        Errors: `CheckpointUnreadable` for one that only a newer gateway can read.
        """
        state, config = await self._values(session_id, (STATE, CONFIG))
        if state is None or config is None:
            return None
        try:
            names = [name for index in chunk_indices(state) for name in chunk_names(index)]
            values = dict(zip(names, await self._values(session_id, names), strict=True))
            return read_checkpoint(state, config, values)
        except ValueError as error:
            logger.warning("a checkpoint cannot be read", extra={"session_id": session_id, "cause": str(error)})
            return None

    async def left(self, session_id: str) -> bool:
        """Whether no gateway will write another checkpoint of the session, as far as it is known."""
        (state,) = await self._values(session_id, (STATE,))
        return state is None or was_left(state)

    async def expire(self, session_id: str, token: int, chunks: Collection[int], *, expire_seconds: float) -> None:
        """What there is lasts for `expire_seconds` more; 0 removes it at once. Errors: `LeaseLost`."""
        names = [STATE, CONFIG, "right", *(name for index in chunks for name in chunk_names(index))]
        keep, remove = (names, ()) if expire_seconds else ((), names)
        await self._leases.write_fenced(
            session_id, token, values={}, keep=keep, remove=remove, expire_seconds=expire_seconds
        )

    async def _values(self, session_id: str, names: Collection[str]) -> list[bytes | None]:
        looks: Any = self._redis.pipeline(transaction=False)
        for name in names:
            looks.get(session_key(session_id, name))
        found: list[bytes | None] = await redis_reply(looks.execute(), timeout_seconds=self._leases.timeout_seconds)
        return found
