"""A short run of the fuzzer; `python -m tests.faults.fuzz` is the long one."""

import pytest

from tests.faults.fuzz import fuzz


@pytest.mark.timeout(600)
async def test_whatever_comes_a_proper_status_goes_back() -> None:
    report = await fuzz(2_500, seed=7)
    print(report.inputs, "messages", dict(report.calls))
    assert report.failures == []
    assert report.inputs >= 2_500
    statuses = {name.split()[1] for name in report.calls}
    assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND"} <= statuses, "the fuzzer reaches good and bad ends"
