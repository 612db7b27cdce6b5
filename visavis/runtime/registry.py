"""Heartbeats of stage instances in Redis: who serves what, where, and how full.

Per instance a hash `visavis:stage:{stage}:instance:<id>` that expires, per stage an index set
`visavis:stage:{stage}:instances`; all keys of a stage share one hash slot.
"""

import time
from collections.abc import Mapping
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

# An instance that came back between the look and the removal stays.
_REMOVE_IF_DEAD = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
return redis.call('SREM', KEYS[2], ARGV[1])
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
        members: Any = await self._reply(self._redis.smembers(_index_key(stage)))
        instance_ids = sorted(member.decode() for member in members)
        looks: Any = self._redis.pipeline(transaction=False)
        for instance_id in instance_ids:
            looks.hgetall(_instance_key(stage, instance_id))
        found = []
        for instance_id, fields in zip(instance_ids, await self._reply(looks.execute()), strict=True):
            if not fields:
                await self._run(_REMOVE_IF_DEAD, stage, instance_id)
                continue
            instance = _instance_from(fields)
            if instance is not None:
                found.append(instance)
        return found

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
        "heartbeat_unix_seconds": f"{time.time():.3f}",
    }


def _instance_from(fields: Mapping[bytes, bytes]) -> StageInstance | None:
    """None for a heartbeat of another version that this one cannot read."""
    text = {name.decode(): value.decode() for name, value in fields.items()}
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
        )
    except (KeyError, ValueError):
        return None
