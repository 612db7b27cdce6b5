"""One running system of real processes with the tiny preset, shared by the tests of this folder."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.system.parts import ENVIRONMENT, portrait_jpeg
from visavis.cli.local_system import LocalSystem, SystemSettings, local_system
from visavis.client import BlockingClient, Consent, VisavisClient

CONSENT = Consent.synthetic_person("the tests", "a drawing")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what is in this folder, and gives it the time that processes need to start on a busy machine."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.system)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSystem]:
    """Valkey, the three stages and the gateway."""
    settings = SystemSettings(
        model="tiny",
        redis_url=None,
        run_folder=tmp_path_factory.mktemp("system"),
        gateway_address="127.0.0.1:0",
        environment=ENVIRONMENT,
        service_environment={},
    )
    with local_system(settings, lambda line: None) as system:
        yield system


@pytest.fixture(scope="session")
def avatar_id(system: LocalSystem) -> str:
    """An avatar that is always there."""
    with BlockingClient(system.gateway_address) as client:
        return client.register_avatar(portrait_jpeg(), CONSENT, display_name="drawing").avatar_id


@pytest.fixture
async def client(system: LocalSystem) -> AsyncIterator[VisavisClient]:
    """A client of the running system; afterwards every process must still be alive."""
    async with VisavisClient(system.gateway_address) as client:
        yield client
    system.supervisor.check()
