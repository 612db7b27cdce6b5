"""What every test relies on: quiet OpenMP threads, one torch thread, and the length of a soak."""

from __future__ import annotations

import os

import pytest

# Before any test module imports torch, and for the processes that tests start: waiting threads that spin, and more
# threads than one a process, take the two cores from each other (design, section 10).
os.environ.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="0", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak-minutes", type=float, default=1.0, help="how long tests marked `soak` stream")


@pytest.fixture(scope="session")
def soak_minutes(pytestconfig: pytest.Config) -> float:
    """How many minutes a soak streams: 1 in `make test`, 30 in `make soak`."""
    minutes: float = pytestconfig.getoption("--soak-minutes")
    return minutes


@pytest.hookimpl(tryfirst=True)  # before a folder's own, which gives a timeout to what has none
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Gives soaks the time that they were asked to take, and 4 minutes to start and stop."""
    minutes: float = config.getoption("--soak-minutes")
    for item in items:
        if item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.timeout(60 * (minutes + 4)))
