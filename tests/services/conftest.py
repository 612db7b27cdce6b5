"""One Valkey for the tests of the services."""

from collections.abc import Iterator

import pytest

from visavis.runtime.embedded_redis import EmbeddedRedis


@pytest.fixture(scope="session")
def valkey() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server
