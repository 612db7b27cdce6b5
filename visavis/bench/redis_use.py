"""What a Redis says of itself: its processor time, what came in over the network, and its memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import redis


@dataclass(frozen=True, slots=True)
class RedisUse:
    """At one moment; `since` makes differences of it."""

    cpu_seconds: float
    received_bytes: float
    memory_bytes: float

    @classmethod
    def of(cls, client: redis.Redis) -> Self:
        """Asks the server."""
        found: Any = client.info("everything")
        return cls(
            cpu_seconds=float(found["used_cpu_user"]) + float(found["used_cpu_sys"]),
            received_bytes=float(found["total_net_input_bytes"]),
            memory_bytes=float(found["used_memory"]),
        )

    def since(self, before: RedisUse) -> RedisUse:
        """What has come to it since then."""
        return RedisUse(
            self.cpu_seconds - before.cpu_seconds,
            self.received_bytes - before.received_bytes,
            self.memory_bytes - before.memory_bytes,
        )
