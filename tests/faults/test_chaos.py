"""A short run of the fault bench; `make chaos` is the long one."""

from itertools import islice
from pathlib import Path

import pytest

from tests.faults.chaos import run_chaos
from tests.faults.fault_plan import Fault, plan_faults


@pytest.mark.system
@pytest.mark.timeout(900)
async def test_faults_at_random_lose_nothing(tmp_path: Path) -> None:
    report = await run_chaos(tmp_path, seed=5, faults=6, mean_seconds=2.5, sessions=2)
    print(report.as_dict())
    assert report.failures == []
    assert sum(report.faults.values()) == 6
    # How many a machine makes in that time is its own affair.
    assert sum(outcome.chunks for outcome in report.outcomes) > 2


def test_the_same_seed_gives_the_same_faults() -> None:
    plan = list(islice(plan_faults(3, 2.0), 300))
    assert plan == list(islice(plan_faults(3, 2.0), 300))
    assert {fault.fault for fault in plan} == set(Fault)
