"""One Valkey for the tests of the services, and time for processes that import torch."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from visavis.runtime.embedded_redis import EmbeddedRedis


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On a busy machine a service needs half a minute to start."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(400))


@pytest.fixture(scope="session")
def valkey() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server
