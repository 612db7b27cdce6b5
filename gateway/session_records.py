"""What Redis knows of running sessions: enough to see them, and for a successor to go on. Expires by itself."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from visavis.runtime.redis_connection import RedisClient, redis_reply

REFRESHES_PER_EXPIRY = 3


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """One running session."""

    session_id: str
    avatar_id: str
    gateway_id: str
    generator_id: str
    seed: int
    chunk_index: int
    """The last chunk whose frames were written; 0 before the first."""


class SessionRecords:
    """Key `visavis:{session_id}:session`. Every method raises `StateStoreUnavailable` when Redis cannot be reached."""

    def __init__(self, redis: RedisClient, *, refresh_seconds: float, timeout_seconds: float) -> None:
        self.refresh_seconds = refresh_seconds
        self._redis = redis
        self._timeout_seconds = timeout_seconds

    async def save(self, record: SessionRecord) -> None:
        """Write the record; it lasts for `REFRESHES_PER_EXPIRY` refreshes."""
        expiry_ms = round(self.refresh_seconds * REFRESHES_PER_EXPIRY * 1000)
        operation = self._redis.set(_key(record.session_id), json.dumps(asdict(record)), px=expiry_ms)
        await redis_reply(operation, timeout_seconds=self._timeout_seconds)

    async def load(self, session_id: str) -> SessionRecord | None:
        """The record, or None where no such session runs."""
        text = await redis_reply(self._redis.get(_key(session_id)), timeout_seconds=self._timeout_seconds)
        return None if text is None else SessionRecord(**json.loads(text))

    async def delete(self, session_id: str) -> None:
        """The session has ended."""
        await redis_reply(self._redis.delete(_key(session_id)), timeout_seconds=self._timeout_seconds)


def _key(session_id: str) -> str:
    return f"visavis:{{{session_id}}}:session"
