"""What every test relies on: quiet OpenMP threads, one torch thread, examples of no haste, and the length of a soak."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

# Before any test module imports torch, and for the processes that tests start: waiting threads that spin, and more
# threads than one a process, take the two cores from each other (design, section 10).
os.environ.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="0", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# How long an example takes says how busy the machine is, and the same change is judged by the same examples each time.
settings.register_profile("visavis", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("visavis")

# Whose tests meet real processes, threads, sockets and clocks. One that fails there runs once more, so that a machine
# which stood still for seconds does not throw away a change; the summary names it (RERUN): a fault to be found.
REAL_TIME: Final = {
    "bench",
    "cli",
    "client",
    "faults",
    "gateway",
    "runtime",
    "services",
    "system",
    "training",
    "watching",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak-minutes", type=float, default=1.0, help="how long tests marked `soak` stream")


@pytest.fixture(scope="session")
def soak_minutes(pytestconfig: pytest.Config) -> float:
    """How many minutes a soak streams: 1 in `make test`, 30 in `make soak`."""
    minutes: float = pytestconfig.getoption("--soak-minutes")
    return minutes


@pytest.hookimpl(tryfirst=True)  # before a folder's own, which gives a timeout to what has none
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Gives soaks the time that they were asked to take, and 4 minutes to start and stop; see also `REAL_TIME`."""
    minutes: float = config.getoption("--soak-minutes")
    tests = Path(__file__).parent
    for item in items:
        if item.path.relative_to(tests).parts[0] in REAL_TIME:
            item.add_marker(pytest.mark.flaky(reruns=1))
        if item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.timeout(60 * (minutes + 4)))
