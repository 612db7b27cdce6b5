"""A Valkey server for the gateway's tests, empty at the start of each, and streams that stall when a test says so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from tests.gateway.stalled_streams import StalledStreams
from visavis.runtime.embedded_redis import EmbeddedRedis


@pytest.fixture(scope="session")
def valkey() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def redis_url(valkey: EmbeddedRedis) -> str:
    with Redis.from_url(valkey.url) as client:
        client.flushall()
    return valkey.url


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> StalledStreams:
    return StalledStreams(monkeypatch)
