"""Session leases in Redis: an atomic claim with an expiry and a fencing token.

A session has two keys in one hash slot: `visavis:{session_id}:lease` (hash: holder, claim, token; expires) and
`visavis:{session_id}:fence` (the highest token ever given out; outlives claims and renewals by ten minutes).

The rule: the highest token wins. A claim succeeds when no lease is there, or when its holder may be passed over (the
claimer names the highest token that it takes over from), and gives out a token above the fence; a renewal or release
succeeds only while no higher token exists. So an expired lease can be renewed as long as nobody claimed in between, and
never afterwards; a release raises the fence by one, so that nothing renews what was released. Claims go up by two or
more: a fence of one more than a token says that it was released and that nobody has claimed since.

What belongs to a session is written under its fence too (`write_fenced`): as long as no higher token was given out,
also after a release or an expiry, so that a last checkpoint gets through and a stale one never does.

What a failover can lose: Redis replicates asynchronously, so a promoted replica may not know the last claims, and a
second holder can claim. Tokens start from the server's clock (microseconds), hence the later claim still has the higher
token unless the servers' clocks differ by more than the time between the claims; at the next renewal the earlier
holder is refused. Whoever reads a holder's work compares tokens and takes the highest.
"""

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from visavis.runtime.errors import LeaseHeld, LeaseLost
from visavis.runtime.redis_connection import RedisClient, redis_reply

# A stale holder that sleeps longer than this could meet a fence that started anew; the clock still orders the tokens.
# A fence is all that stays of a session: the longer it lives, the more of them a busy Redis holds.
FENCE_SECONDS = 600.0

_CLAIM = """
local current = redis.call('HMGET', KEYS[1], 'claim', 'token', 'holder')
if current[1] == ARGV[2] then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return {1, current[2]}
end
if current[1] and tonumber(current[2]) > tonumber(ARGV[5]) then
  return {0, current[3]}
end
local now = redis.call('TIME')
local fence = tonumber(redis.call('GET', KEYS[2]) or '0')
local token = string.format('%.0f', math.max(fence + 2, now[1] * 1000000 + now[2]))
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'claim', ARGV[2], 'token', token)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('SET', KEYS[2], token, 'PX', ARGV[4])
return {1, token}
"""

_RENEW = """
if tonumber(ARGV[5]) < tonumber(redis.call('GET', KEYS[2]) or '0') then
  return 0
end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'claim', ARGV[2], 'token', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('SET', KEYS[2], ARGV[5], 'PX', ARGV[4])
return 1
"""

_RELEASE = """
local token = tonumber(ARGV[1])
if token < tonumber(redis.call('GET', KEYS[2]) or '0') then
  return 0
end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], string.format('%.0f', token + 1), 'PX', ARGV[2])
return 1
"""

# KEYS: the fence, then what is written, what is kept, what is removed; ARGV: token, lives of fence and values, the
# numbers of written and kept keys, the values.
_WRITE_FENCED = """
local token, fence = tonumber(ARGV[1]), tonumber(redis.call('GET', KEYS[1]) or '0')
if token + 1 < fence then
  return 0
end
if token > fence then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
local written, kept = tonumber(ARGV[4]), tonumber(ARGV[5])
for index = 1, written do
  redis.call('SET', KEYS[1 + index], ARGV[5 + index], 'PX', ARGV[3])
end
for index = written + 1, written + kept do
  redis.call('PEXPIRE', KEYS[1 + index], ARGV[3])
end
for index = 2 + written + kept, #KEYS do
  redis.call('DEL', KEYS[index])
end
return 1
"""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right of one holder to serve one session."""

    session_id: str
    holder: str
    # Names this claim, so that a claim repeated after a lost reply finds itself.
    claim: str
    # Grows with every claim of the session.
    token: int


class LeaseStore:
    """Claims, renews and releases leases. Every method raises StateStoreUnavailable when Redis cannot be reached."""

    def __init__(
        self,
        redis: RedisClient,
        *,
        lease_seconds: float,
        timeout_seconds: float,
        fence_seconds: float = FENCE_SECONDS,
    ) -> None:
        self.lease_seconds = lease_seconds
        self.timeout_seconds = timeout_seconds
        self._redis = redis
        self._fence_ms = round(fence_seconds * 1000)

    async def claim(self, session_id: str, holder: str, *, take_over_token: int = 0) -> Lease:
        """Takes a session that is free, or whose holder's token is `take_over_token` or lower; 0 takes only a free one.

        Raises LeaseHeld while anybody else (the same holder included) has it.
        """
        claim = secrets.token_hex(8)
        taken, answer = await self._run(
            _CLAIM, session_id, holder, claim, self._lease_ms, self._fence_ms, take_over_token
        )
        if not taken:
            raise LeaseHeld(f"session {session_id} is served by {answer.decode()}")
        return Lease(session_id, holder, claim, int(answer))

    async def renew(self, lease: Lease) -> None:
        """Starts the expiry anew; raises LeaseLost when there was a later claim or a release."""
        renewed = await self._run(
            _RENEW, lease.session_id, lease.holder, lease.claim, self._lease_ms, self._fence_ms, lease.token
        )
        if not renewed:
            raise LeaseLost(f"the lease of session {lease.session_id} went to a later claim")

    async def release(self, lease: Lease) -> bool:
        """Frees the session; False when the lease was stale already, which then changes nothing."""
        return bool(await self._run(_RELEASE, lease.session_id, lease.token, self._fence_ms))

    async def current(self, session_id: str) -> Lease | None:
        """Who holds the session now."""
        reply: Any = self._redis.hmget(lease_key(session_id), ["holder", "claim", "token"])
        holder, claim, token = await redis_reply(reply, timeout_seconds=self.timeout_seconds)
        if holder is None or claim is None or token is None:
            return None
        return Lease(session_id, holder.decode(), claim.decode(), int(token))

    async def write_fenced(
        self,
        session_id: str,
        token: int,
        *,
        values: Mapping[str, bytes],
        keep: Collection[str] = (),
        remove: Collection[str] = (),
        expire_seconds: float,
    ) -> None:
        """Writes, keeps and removes values of a session, all or nothing, while no token above `token` was given out.

        Names stand for the keys `visavis:{session_id}:name` (see `session_key`). What is written expires after
        `expire_seconds`, and the expiry of what `keep` names begins anew; missing keys there are fine.
        Raises LeaseLost when a later claim exists; then nothing has changed.
        """
        keys = [fence_key(session_id), *(session_key(session_id, name) for name in (*values, *keep, *remove))]
        numbers = (token, self._fence_ms, round(expire_seconds * 1000), len(values), len(keep))
        reply: Any = self._redis.eval(_WRITE_FENCED, len(keys), *keys, *numbers, *values.values())
        if not await redis_reply(reply, timeout_seconds=self.timeout_seconds):
            raise LeaseLost(f"session {session_id} went to a later claim; what token {token} writes is refused")

    @property
    def _lease_ms(self) -> int:
        return round(self.lease_seconds * 1000)

    async def _run(self, script: str, session_id: str, *arguments: str | int) -> Any:
        keys = (lease_key(session_id), fence_key(session_id))
        reply: Any = self._redis.eval(script, len(keys), *keys, *arguments)
        return await redis_reply(reply, timeout_seconds=self.timeout_seconds)


def session_key(session_id: str, name: str) -> str:
    """The key of a value that belongs to a session; all keys of one share a hash slot."""
    return f"visavis:{{{session_id}}}:{name}"


def lease_key(session_id: str) -> str:
    return session_key(session_id, "lease")


def fence_key(session_id: str) -> str:
    return session_key(session_id, "fence")
