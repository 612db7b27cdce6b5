"""Heartbeats of stage instances in Redis: who serves what, where, and how full.

Per instance a hash `visavis:stage:{stage}:instance:<id>` that expires, per stage an index set
`visavis:stage:{stage}:instances`; all keys of a stage share one hash slot.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from visavis.runtime.redis_connection import RedisClient, redis_reply

# An instance is gone when it missed this many heartbeats.
HEARTBEATS_PER_EXPIRY = 4

_HEARTBEAT = """
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('SADD', KEYS[2], ARGV[1])
"""

_REMOVE = """
redis.call('DEL', KEYS[1])
return redis.call('SREM', KEYS[2], ARGV[1])
"""

# All heartbeats of a stage in one answer: taking a thousand apart, reply by reply, holds the event loop for several
# frames (docs/capacity.md). Their keys are in the hash slot of KEYS[1]; the dead leave the index.
_LIST = """
local found = {}
for _, instance_id in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local fields = redis.call('HGETALL', ARGV[1] .. instance_id)
  if #fields == 0 then
    redis.call('SREM', KEYS[1], instance_id)
  else
    found[#found + 1] = fields
  end
end
return cjson.encode(found)
"""


@dataclass(frozen=True, slots=True)
class StageInstance:
    """One heartbeat. `used_slots` and `draining` are hints: the instance itself is the authority on its capacity."""

    stage: str
    instance_id: str
    # host:port under which the gateway reaches it.
    address: str
    slots: int
    used_slots: int
    draining: bool
    model_name: str
    model_fingerprint: str
    random_weights: bool
    # Of the pictures; 0 where a stage does not know.
    width: int
    height: int
    frame_rate: int
    # Opaque; see EngineDescription.
    compatibility: str
    # Of a generator; see EngineDescription.
    sampling: str = ""

    @property
    def free_slots(self) -> int:
        return 0 if self.draining else max(0, self.slots - self.used_slots)


class Registry:
    """Writes and lists heartbeats. Every method raises StateStoreUnavailable when Redis cannot be reached."""

    def __init__(self, redis: RedisClient, *, heartbeat_seconds: float, timeout_seconds: float) -> None:
        self._redis = redis
        self._expiry_ms = round(heartbeat_seconds * HEARTBEATS_PER_EXPIRY * 1000)
        self._timeout_seconds = timeout_seconds

    async def heartbeat(self, instance: StageInstance) -> None:
        """Says that the instance lives; lasts for `HEARTBEATS_PER_EXPIRY` heartbeats."""
        fields = [part for pair in _fields_of(instance).items() for part in pair]
        await self._run(_HEARTBEAT, instance.stage, instance.instance_id, self._expiry_ms, *fields)

    async def remove(self, stage: str, instance_id: str) -> None:
        """Says that the instance is gone, at once."""
        await self._run(_REMOVE, stage, instance_id)

    async def list_instances(self, stage: str) -> list[StageInstance]:
        """The living instances of a stage, by instance id; the dead leave the index."""
        reply = await self._reply(self._redis.eval(_LIST, 1, _index_key(stage), _instance_key(stage, "")))
        # No instance is an object to Lua's JSON, and of none of its values is it said that it is UTF-8.
        listed: list[Sequence[str]] = list(json.loads(reply.decode(errors="replace")))
        found = (_instance_from(dict(zip(fields[::2], fields[1::2], strict=True))) for fields in listed)
        return sorted(filter(None, found), key=lambda instance: instance.instance_id)

    async def _run(self, script: str, stage: str, instance_id: str, *arguments: str | int) -> None:
        keys = (_instance_key(stage, instance_id), _index_key(stage))
        await self._reply(self._redis.eval(script, len(keys), *keys, instance_id, *arguments))

    async def _reply(self, operation: Any) -> Any:
        return await redis_reply(operation, timeout_seconds=self._timeout_seconds)


def _index_key(stage: str) -> str:
    return f"visavis:stage:{{{stage}}}:instances"


def _instance_key(stage: str, instance_id: str) -> str:
    return f"visavis:stage:{{{stage}}}:instance:{instance_id}"


def _fields_of(instance: StageInstance) -> dict[str, str]:
    return {
        "stage": instance.stage,
        "instance_id": instance.instance_id,
        "address": instance.address,
        "slots": str(instance.slots),
        "used_slots": str(instance.used_slots),
        "draining": str(int(instance.draining)),
        "model_name": instance.model_name,
        "model_fingerprint": instance.model_fingerprint,
        "random_weights": str(int(instance.random_weights)),
        "width": str(instance.width),
        "height": str(instance.height),
        "frame_rate": str(instance.frame_rate),
        "compatibility": instance.compatibility,
        "sampling": instance.sampling,
        "heartbeat_unix_seconds": f"{time.time():.3f}",
    }


def _instance_from(text: Mapping[str, str]) -> StageInstance | None:
    """None for a heartbeat of another version that this one cannot read."""
    try:
        return StageInstance(
            stage=text["stage"],
            instance_id=text["instance_id"],
            address=text["address"],
            slots=int(text["slots"]),
            used_slots=int(text["used_slots"]),
            draining=text["draining"] == "1",
            model_name=text["model_name"],
            model_fingerprint=text["model_fingerprint"],
            random_weights=text["random_weights"] == "1",
            width=int(text["width"]),
            height=int(text["height"]),
            frame_rate=int(text["frame_rate"]),
            compatibility=text["compatibility"],
            # Instances of before this field sample in the one way there was.
            sampling=text.get("sampling", ""),
        )
    except (KeyError, ValueError):
        return None
