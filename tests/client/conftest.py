"""A fake server for each test."""

from collections.abc import AsyncIterator

import pytest

from tests.client.fake_server import FakeService, serve_fake
from visavis.client import VisavisClient


@pytest.fixture
def service() -> FakeService:
    """The fake behind `client`."""
    return FakeService()


@pytest.fixture
async def address(service: FakeService) -> AsyncIterator[str]:
    """Where the fake listens."""
    async with serve_fake(service) as address:
        yield address


@pytest.fixture
async def client(address: str) -> AsyncIterator[VisavisClient]:
    """A client of the fake."""
    async with VisavisClient(address) as client:
        yield client
