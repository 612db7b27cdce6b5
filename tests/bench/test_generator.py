"""A short run of `visavis bench generator`, and what its page says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from visavis.bench.generator_report import print_result, write_result
from visavis.bench.generator_result import SCHEMA, GeneratorResult, ModeFigures, SessionsFigures
from visavis.bench.generator_work import Rates
from visavis.bench.percentiles import Percentiles
from visavis.bench.surroundings import surroundings
from visavis.bench.turns import time_in_turns
from visavis.cli.main import main


def figures(sessions: int, seconds: float, **others: Percentiles | None) -> SessionsFigures:
    nothing = dict.fromkeys(
        ("one_by_one_seconds", "plain_seconds", "diffusers_seconds", "decode_seconds", "beside_seconds")
    )
    return SessionsFigures(
        sessions=sessions,
        chunk_seconds=Percentiles.of([seconds]),
        bound_seconds=0.1 * sessions,
        operations=1e11 * sessions,
        moved_bytes=5e8,
        memory_bytes=2**30,
        **{**nothing, **others},
    )


def a_result(*sessions: SessionsFigures, gpu: str | None = None) -> GeneratorResult:
    mode = ModeFigures(
        preset="mini",
        mode="parity",
        picture_size=256,
        blocks=10,
        preset_blocks=10,
        steps=8,
        branches=2,
        random_weights=True,
        plain_error=3e-7,
        sessions=sessions,
    )
    return GeneratorResult(
        schema=SCHEMA,
        surroundings=surroundings(),
        gpu=gpu,
        threads=2,
        execution="eager",
        precision="float32",
        rates=Rates(260e9, 260e9, 12e9),
        seconds=3.0,
        modes=(mode,),
    )


def test_shares_and_ratios() -> None:
    four = figures(4, 0.8, one_by_one_seconds=Percentiles.of([1.2]))
    assert four.bound_share == pytest.approx(0.5)
    assert four.frames_per_second == pytest.approx(4 * 24 / 0.8)
    assert four.faster_than(four.one_by_one_seconds) == pytest.approx(1.5)
    assert four.faster_than(None) is None
    assert four.keeps_up
    assert not figures(8, 0.97).keeps_up


def test_a_page_says_what_was_reached_and_what_was_not(tmp_path: Path) -> None:
    slow = figures(4, 1.0, one_by_one_seconds=Percentiles.of([1.1]))
    page, numbers, plot = write_result(a_result(figures(1, 0.4), slow), tmp_path)
    text = page.read_text()
    assert "GPU: not measured" in text
    assert "1.10 times as fast as one by one (target 1.3: not met)" in text
    assert "Sessions whose p95 stays under 0.96 s: 1 of the numbers tried." in text
    assert "| 1 | 400 ms | 400 ms | 100 ms | 25% | 60.0 | yes | 1.00 GiB | – | – | – | – | – |" in text
    assert json.loads(numbers.read_text())["rates"]["moved_bytes"] == 12e9
    assert "<svg" in plot.read_text()
    assert plot.name in text


def test_a_page_of_a_gpu_names_it(tmp_path: Path) -> None:
    page, *_ = write_result(a_result(figures(1, 0.1), gpu="NVIDIA H200"), tmp_path)
    assert page.name.endswith("-generator-gpu.md")
    assert "- GPU: NVIDIA H200" in page.read_text()


def test_jobs_take_turns() -> None:
    done: list[str] = []
    found = time_in_turns({name: lambda name=name: done.append(name) for name in "ab"}, 0.0)  # type: ignore[misc]
    assert done == ["a", "b"] * 4
    assert {name: times.count for name, times in found.items()} == {"a": 3, "b": 3}


@pytest.mark.timeout(300)
def test_a_run_measures_every_way(tmp_path: Path) -> None:
    command = ["bench", "generator", "--preset", "tiny", "--sessions", "1,2", "--compare", "2", "--decode"]
    assert main([*command, "--seconds", "0", "--results", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*-generator-*.json")
    found = json.loads(path.read_text())
    assert found["schema"] == SCHEMA
    assert [(each["mode"], each["steps"], each["branches"]) for each in found["modes"]] == [
        ("parity", 2, 2),
        ("fast", 1, 1),
    ]
    for mode in found["modes"]:
        assert mode["plain_error"] < 1e-4
        one, two = mode["sessions"]
        for name in ("chunk", "decode", "beside"):
            assert one[f"{name}_seconds"]["count"] >= 3
        assert one["one_by_one_seconds"] is None
        assert one["plain_seconds"] is None
        for name in ("one_by_one", "plain", "diffusers"):
            assert two[f"{name}_seconds"]["p50"] > 0
        assert two["operations"] == 2 * one["operations"]
        assert one["moved_bytes"] < two["moved_bytes"] < 2 * one["moved_bytes"]
        assert 0 < one["bound_seconds"] < one["chunk_seconds"]["p50"]


@pytest.mark.timeout(300)
def test_fewer_blocks_in_int8_without_comparisons(tmp_path: Path) -> None:
    command = ["bench", "generator", "--preset", "tiny", "--sessions", "1", "--compare", "0", "--modes", "fast"]
    others = ["--blocks", "1", "--dtype", "int8", "--device", "cpu", "--seconds", "0", "--no-result"]
    path = tmp_path / "found.json"
    assert main([*command, *others, "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert found["precision"] == "int8"
    (mode,) = found["modes"]
    assert (mode["blocks"], mode["preset_blocks"]) == (1, 2)
    assert mode["plain_error"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seconds", "-1"], "--seconds is between"),
        (["--sessions", "0"], "--sessions are between"),
        (["--blocks", "0"], "--blocks is at least"),
        (["--preset", "huge", "--seconds", "0"], "'huge' is neither a preset"),
        (["--device", "cpu", "--execution", "graphed", "--preset", "tiny"], "needs a CUDA device"),
        (["--device", "cpu", "--execution", "compiled", "--preset", "tiny", "--dtype", "int8"], "no weights in 8 bits"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "generator", "--no-result", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_the_terminal_shows_the_share_of_the_bound(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(a_result(figures(1, 0.4)), Console(width=120))
    shown = capsys.readouterr().out
    assert "25%" in shown
    assert "GPU: not measured" in shown
