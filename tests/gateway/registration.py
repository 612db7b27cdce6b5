"""Waits for services that run as processes: one that says it is ready is in the registry a moment later."""

from __future__ import annotations

import time

from redis import Redis

from tests.gateway.talk_client import LIMIT_SECONDS


def wait_until_registered(redis_url: str, stage: str, instance_id: str) -> None:
    """Returns when gateways can find the instance."""
    gives_up_at = time.monotonic() + LIMIT_SECONDS
    with Redis.from_url(redis_url) as redis:
        while not redis.sismember(f"visavis:stage:{{{stage}}}:instances", instance_id):
            assert time.monotonic() < gives_up_at, f"{instance_id} has sent no heartbeat"
            time.sleep(0.01)
