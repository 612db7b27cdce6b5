"""What a dated result says."""

import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from tests.bench.test_figures import QUIET, chunk, session
from visavis.bench.percentiles import Percentiles
from visavis.bench.pipeline_report import print_result, write_json, write_markdown
from visavis.bench.pipeline_result import InProcessFigures, PipelineResult, pace_figures
from visavis.bench.resources import MachineClock, ResourceUse
from visavis.bench.surroundings import surroundings
from visavis.client import Model

RESOURCES = {"generator": ResourceUse(peak_rss_bytes=700 * 2**20, cpu_seconds=4.0)}
SESSIONS = [session(chunk(1, 1.0), chunk(2, 1.9)), session(chunk(1, 1.1), chunk(2, 3.0))]
RESULT = PipelineResult(
    surroundings=surroundings(),
    preset="mini",
    model=Model("mini", "abc", random_weights=True),
    sessions=2,
    speech_seconds=1.92,
    threads="1",
    fast=pace_figures("fast", SESSIONS, RESOURCES, QUIET),
    paced=pace_figures("paced", SESSIONS, RESOURCES, replace(QUIET, others_cpu_seconds=3.0)),
    in_process=InProcessFigures(0.7, Percentiles.of([0.6, 0.7]), threads=2, matrix_operations_per_second=2.5e11),
)


def test_a_dated_page_names_commit_hardware_command_and_date(tmp_path: Path) -> None:
    path = write_markdown(RESULT, tmp_path)
    text = path.read_text()
    where = RESULT.surroundings
    for expected in (where.commit, where.processor, where.command, where.date, where.torch, "weights random"):
        assert expected in text
    assert path.name.startswith(where.date[:4])
    assert "| generator | 700 MiB | 4.0 s |" in text
    assert "late chunks 1 of 4" in text


def test_a_busy_machine_is_told() -> None:
    console = Console(record=True, width=200)
    print_result(RESULT, console)
    text = console.export_text()
    assert text.count("The machine was busy: others took 30%") == 1


def test_every_figure_is_in_the_json(tmp_path: Path) -> None:
    write_json(RESULT, tmp_path / "deep" / "a.json")
    found = json.loads((tmp_path / "deep" / "a.json").read_text())
    assert found["paced"]["stages"]["total"]["p50"] == RESULT.paced.stages.total.p50
    assert found["fast"]["resources"]["generator"]["peak_rss_bytes"] == 700 * 2**20
    assert found["in_process"]["real_time_factor"] == 0.7


def test_the_clock_of_the_machine_counts_what_is_available() -> None:
    use = MachineClock().use({})
    assert 0 <= use.available_cpu_seconds < 10
    assert use.others_cpu_seconds >= 0
