"""The profiler's tables."""

from __future__ import annotations

import pytest
import torch

from visavis.bench.profile_stages import OperatorTime, main, profile, table


def test_what_takes_longest_stands_first() -> None:
    large, small = torch.randn(300, 300), torch.randn(3)

    def job() -> None:
        small.add(1)
        for _ in range(5):
            large @ large

    first, *others = profile(job, repeats=2)
    assert (first.name, first.calls) == ("aten::mm", 5)
    assert {"aten::add"} <= {each.name for each in others}


def test_what_is_not_shown_is_in_the_last_row() -> None:
    operators = [OperatorTime(f"op{index}", 1, 1.0) for index in range(20)]
    *_, last = table(operators)
    assert last == "| all others | 8 | 8000.0 | 40.0% |"


@pytest.mark.timeout(300)
def test_all_stages_are_profiled(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--preset", "tiny", "--device", "cpu"]) == 0
    shown = capfd.readouterr().out
    for name in ("Generator (tiny", "Decoder (tiny", "Audio encoder"):
        assert f"## {name}" in shown
    assert "`mkldnn::_linear_pointwise`" in shown or "`aten::addmm`" in shown
