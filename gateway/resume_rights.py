"""Who may serve and who may resume a session, in Redis: of several gateways and clients exactly one wins.

`visavis:{session_id}:right` is a hash: `owner` (the stream that serves the session), `current` (hash of its resume
token) and, until the client has shown that it got that one, `previous` (hash of the token it resumed with: the answer
that carried the new one may have been lost).
"""

from __future__ import annotations

import secrets
from typing import Any, Final

from gateway.resume_token import ResumeToken
from visavis.runtime.errors import LeaseLost, NotFound
from visavis.runtime.leases import LeaseStore, session_key
from visavis.runtime.redis_connection import RedisClient, redis_reply

# Also makes the right anew where Redis has lost it; 0 when it is another's.
_HOLD: Final = """
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner and owner ~= ARGV[1] then return 0 end
if not owner then redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'current', ARGV[2]) end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""

_TAKE: Final = """
local known = redis.call('HMGET', KEYS[1], 'current', 'previous')
if not known[1] or (ARGV[1] ~= known[1] and ARGV[1] ~= known[2]) then return 0 end
redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'current', ARGV[3], 'previous', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
"""

_CONFIRM: Final = """
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
return redis.call('HDEL', KEYS[1], 'previous')
"""


class ResumeRights:
    """Every method raises `StateStoreUnavailable` when Redis cannot be reached."""

    def __init__(self, redis: RedisClient, leases: LeaseStore) -> None:
        self._redis = redis
        self._leases = leases

    def begin(self, session_id: str) -> HeldRight:
        """The right of a new session; in Redis once it is `hold`."""
        return HeldRight(self._redis, self._leases, ResumeToken.draw(session_id))

    async def knows(self, token: ResumeToken) -> bool:
        """Whether a token would be taken now."""
        key = session_key(token.session_id, "right")
        reply: Any = self._redis.hmget(key, ["current", "previous"])
        known = await redis_reply(reply, timeout_seconds=self._leases.timeout_seconds)
        return token.hash.encode() in known

    async def take(self, token: ResumeToken, *, expire_seconds: float) -> HeldRight:
        """The right of a session for whoever holds its token. Errors: `NotFound` for a void or unknown one."""
        held = HeldRight(self._redis, self._leases, ResumeToken.draw(token.session_id))
        if not await held.run(_TAKE, token.hash, held.owner, held.token.hash, round(expire_seconds * 1000)):
            raise nothing_to_resume()
        return held


class HeldRight:
    """One stream's right to serve its session, until another stream takes it."""

    def __init__(self, redis: RedisClient, leases: LeaseStore, token: ResumeToken) -> None:
        self.owner = secrets.token_hex(16)
        self.token = token
        self._redis = redis
        self._leases = leases

    async def hold(self, *, expire_seconds: float) -> None:
        """Begin its expiry anew. Errors: `LeaseLost` when another stream has taken it."""
        if not await self.run(_HOLD, self.owner, self.token.hash, round(expire_seconds * 1000)):
            raise _taken()

    async def confirm(self) -> None:
        """The client has shown that it got `token`: the one before is void."""
        await self.run(_CONFIRM, self.owner)

    async def take_over_token(self) -> int:
        """See `SessionRights`: whatever holds the lease of this session, holds it for this stream or an older one."""
        reply: Any = self._redis.hget(self._key, "owner")
        owner = await redis_reply(reply, timeout_seconds=self._leases.timeout_seconds)
        if owner is not None and owner.decode() != self.owner:
            raise _taken()
        lease = await self._leases.current(self.token.session_id)
        return 0 if lease is None else lease.token

    async def run(self, script: str, *arguments: str | int) -> Any:
        """One of this module's scripts on the right's key."""
        reply: Any = self._redis.eval(script, 1, self._key, *arguments)
        return await redis_reply(reply, timeout_seconds=self._leases.timeout_seconds)

    @property
    def _key(self) -> str:
        return session_key(self.token.session_id, "right")


def nothing_to_resume() -> NotFound:
    """The error for a token that is void, whyever."""
    return NotFound("this token resumes no session: it is void, the session ended, or the time for it has passed")


def _taken() -> LeaseLost:
    return LeaseLost("the session was resumed in another stream")
