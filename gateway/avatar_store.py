"""Avatars in Redis: the record, the portrait's latent and its thumbnail. The portrait itself is not kept.

Keys share one hash slot: `visavis:{avatars}:avatar:<id>` is a hash of the serialized messages,
`visavis:{avatars}:index` a sorted set whose members order avatars by their creation.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

from visavis.runtime.errors import InvalidInput, NotFound
from visavis.runtime.redis_connection import RedisClient, redis_reply
from visavis.v1.talking_head_pb2 import Avatar
from visavis.v1.tensor_pb2 import Tensor

_INDEX = "visavis:{avatars}:index"

# An avatar and its entry in the index come and go together.
_SAVE = """
redis.call('HSET', KEYS[1], 'avatar', ARGV[2], 'latent', ARGV[3], 'thumbnail', ARGV[4])
return redis.call('ZADD', KEYS[2], 0, ARGV[1])
"""
_DELETE = """
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('DEL', KEYS[1])
"""


@dataclass(frozen=True, slots=True)
class StoredAvatar:
    """An avatar with what the model and people see of its portrait."""

    avatar: Avatar
    portrait_latent: Tensor
    thumbnail: bytes
    """JPEG."""


@dataclass(frozen=True, slots=True)
class AvatarPage:
    """Part of the list of avatars, oldest first."""

    avatars: list[Avatar]
    next_page_token: str
    """Empty on the last page."""


class AvatarStore:
    """Saves, loads, lists and deletes. Every method raises `StateStoreUnavailable` when Redis cannot be reached."""

    def __init__(self, redis: RedisClient, *, timeout_seconds: float) -> None:
        self._redis = redis
        self._timeout_seconds = timeout_seconds

    async def save(self, stored: StoredAvatar) -> None:
        """Write a new avatar."""
        avatar = stored.avatar
        parts = (avatar.SerializeToString(), stored.portrait_latent.SerializeToString(), stored.thumbnail)
        await self._eval(_SAVE, avatar.avatar_id, _member(avatar), *parts)

    async def load(self, avatar_id: str) -> StoredAvatar:
        """One avatar with everything. Errors: `NotFound`."""
        fields = await self._reply(self._redis.hgetall(_key(avatar_id)))
        if not fields:
            raise _unknown(avatar_id)
        return StoredAvatar(
            Avatar.FromString(fields[b"avatar"]), Tensor.FromString(fields[b"latent"]), fields[b"thumbnail"]
        )

    async def delete(self, avatar_id: str) -> None:
        """Forget an avatar. Errors: `NotFound`."""
        record = await self._reply(self._redis.hget(_key(avatar_id), "avatar"))
        if record is None or not await self._eval(_DELETE, avatar_id, _member(Avatar.FromString(record))):
            raise _unknown(avatar_id)

    async def list_page(self, page_size: int, page_token: str) -> AvatarPage:
        """Up to `page_size` avatars behind `page_token`; ones that come or go meanwhile disturb no page.

        Errors: `InvalidInput` for a token that no page gave.
        """
        start = "(" + _from_token(page_token) if page_token else "-"
        # One more than asked for says whether another page follows.
        found = await self._reply(self._redis.zrangebylex(_INDEX, start, "+", 0, page_size + 1))
        members = [member.decode() for member in found]
        looks: Any = self._redis.pipeline(transaction=False)
        for member in members[:page_size]:
            looks.hget(_key(member.partition(":")[2]), "avatar")
        records = await self._reply(looks.execute())
        avatars = [Avatar.FromString(record) for record in records if record is not None]
        return AvatarPage(avatars, _to_token(members[page_size - 1]) if len(members) > page_size else "")

    async def _eval(self, script: str, avatar_id: str, *arguments: str | bytes) -> Any:
        return await self._reply(self._redis.eval(script, 2, _key(avatar_id), _INDEX, *arguments))

    async def _reply(self, operation: Any) -> Any:
        return await redis_reply(operation, timeout_seconds=self._timeout_seconds)


def _key(avatar_id: str) -> str:
    return f"visavis:{{avatars}}:avatar:{avatar_id}"


def _member(avatar: Avatar) -> str:
    # Members of one score are ordered as bytes, so the digits are padded.
    return f"{avatar.create_time.ToMicroseconds():020d}:{avatar.avatar_id}"


def _to_token(member: str) -> str:
    return base64.urlsafe_b64encode(member.encode()).decode()


def _from_token(token: str) -> str:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise InvalidInput("page_token is none that a page gave; begin with an empty one", "page_token") from None


def _unknown(avatar_id: str) -> NotFound:
    return NotFound(f"there is no avatar {avatar_id[:100]!r}; register it first")
