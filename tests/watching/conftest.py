"""One running system with the tiny preset that exports to a collector, and what happens in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.parts import ENVIRONMENT, portrait_jpeg
from tests.watching.collector import Collector, running_collector
from visavis.cli.local_system import LocalSystem, SystemSettings, local_system
from visavis.client import BlockingClient, Consent

GENERATOR_SLOTS = 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Processes need time to start on a busy machine."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(240))


@dataclass(frozen=True, slots=True)
class WatchedSystem:
    """A running system, its collector and an avatar."""

    system: LocalSystem
    collector: Collector
    avatar_id: str


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedSystem]:
    """Valkey, the three stages and the gateway as processes; the generator takes `GENERATOR_SLOTS` sessions."""
    with running_collector() as collector:
        settings = SystemSettings(
            model="tiny",
            redis_url=None,
            run_folder=tmp_path_factory.mktemp("watched"),
            gateway_address="127.0.0.1:0",
            environment={
                **ENVIRONMENT,
                "VISAVIS_OTLP_ENDPOINT": collector.endpoint,
                # Of the SDK: how often what has ended is sent.
                "OTEL_BSP_SCHEDULE_DELAY": "200",
            },
            service_environment={"generator": {"VISAVIS_SLOTS": str(GENERATOR_SLOTS)}},
        )
        with local_system(settings, lambda line: None) as system:
            with BlockingClient(system.gateway_address) as client:
                consent = Consent.synthetic_person("the tests", "a drawing")
                avatar = client.register_avatar(portrait_jpeg(), consent, display_name="drawing")
            yield WatchedSystem(system, collector, avatar.avatar_id)
