"""The profiler's tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from visavis.bench.profile_stages import OperatorTime, main, profile, table


def test_what_takes_longest_stands_first() -> None:
    large, small = torch.randn(300, 300), torch.randn(3)

    def job() -> None:
        small.add(1)
        for _ in range(5):
            large @ large

    found = profile(job, repeats=2)
    assert {each.name: each.calls for each in found}.items() >= {"aten::mm": 5, "aten::add": 1}.items()
    seconds = [each.seconds for each in found]
    assert seconds == sorted(seconds, reverse=True)


def test_what_is_not_shown_is_in_the_last_row() -> None:
    operators = [OperatorTime(f"op{index}", 1, 1.0) for index in range(20)]
    *_, last = table(operators)
    assert last == "| all others | 8 | 8000.0 | 40.0% |"


@pytest.mark.timeout(300)
def test_all_stages_are_profiled(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    assert main(["--preset", "tiny", "--device", "cpu", "--json", str(path)]) == 0
    shown, found = capfd.readouterr().out, json.loads(path.read_text())
    assert found["surroundings"]["commit"] in shown
    stages = zip(("Generator (tiny", "Decoder (tiny", "Audio encoder"), found["stages"], strict=True)
    for name, stage in stages:
        assert stage["name"].startswith(name)
        assert f"## {stage['name']}" in shown
        first = stage["operators"][0]
        assert f"| `{first['name']}` | {first['calls']} | {first['seconds'] * 1000:.1f} |" in shown
    names = {operator["name"] for stage in found["stages"] for operator in stage["operators"]}
    assert names & {"mkldnn::_linear_pointwise", "aten::addmm"}
