"""What a dated result says."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from tests.bench.histories import good_run, seen
from tests.bench.test_figures import QUIET, chunk, session
from visavis.bench.capacity_search import SearchStep, find_capacity
from visavis.bench.load_figures import load_figures
from visavis.bench.percentiles import Percentiles
from visavis.bench.pipeline_report import print_result, write_results
from visavis.bench.pipeline_result import (
    InProcessFigures,
    ModelRun,
    PipelineResult,
    fast_figures,
    overhead_of,
    paced_figures,
)
from visavis.bench.resources import MachineClock, ResourceUse
from visavis.bench.surroundings import surroundings
from visavis.client import Model

RESOURCES = {"generator": ResourceUse(peak_rss_bytes=700 * 2**20, cpu_seconds=4.0)}
LATE = good_run(sessions=1)
LATE.add(seen(101, 0.9, late=0.4))
FAST = fast_figures([session(chunk(1, 1.0), chunk(2, 1.9))], RESOURCES, QUIET)
PACED = paced_figures(load_figures(LATE), RESOURCES, replace(QUIET, others_cpu_seconds=3.0))
RUN = ModelRun(device="auto", dtype="int8", sampling="standard", execution="eager")
ALONE = InProcessFigures(RUN, "int8", 0.7, Percentiles.of([0.6, 0.7]), 0.9, 2, matrix_operations_per_second=2.5e11)
RESULT = PipelineResult(
    surroundings=surroundings(),
    preset="mini",
    model=Model("mini", "abc", random_weights=True),
    sessions=1,
    speech_seconds=1.92,
    playout_buffer_seconds=0.2,
    settings=("VISAVIS_DTYPE=int8",),
    run=RUN,
    fast=FAST,
    paced=PACED,
    search=find_capacity(4, lambda n: SearchStep(n, PACED.load, ("late",) if n > 3 else ())),
    in_process=ALONE,
    overhead=overhead_of(FAST, PACED, RUN, ALONE),
)


def test_a_dated_page_names_commit_hardware_command_and_date(tmp_path: Path) -> None:
    page, figures, plot = write_results(RESULT, tmp_path / "results")
    text = page.read_text()
    where = RESULT.surroundings
    for expected in (
        where.commit,
        where.processor,
        where.command,
        where.date,
        where.torch,
        "weights random",
        "DTYPE=int8",
        "hold 0.2 s",
    ):
        assert expected in text
    assert page.name.startswith(where.date[:4])
    assert "| generator | 700 MiB | 4.0 s |" in text
    assert "late chunks 1 of 101" in text
    assert "3 session(s) sustained" in text
    assert f"({plot.name})" in text
    assert plot.read_text().startswith("<svg")
    assert json.loads(figures.read_text())["paced"]["load"]["late_chunks"] == 1


def test_without_a_search_there_is_no_plot(tmp_path: Path) -> None:
    written = write_results(replace(RESULT, search=None, in_process=None, overhead=None), tmp_path)
    assert [path.suffix for path in written] == [".md", ".json"]


def test_runs_of_different_products_are_not_compared(tmp_path: Path) -> None:
    alone = replace(ALONE, run=replace(RUN, dtype="auto"), precision="float32")
    text = write_results(replace(RESULT, in_process=alone, overhead=None), tmp_path)[0].read_text()
    assert "Not compared with the services, which ran otherwise: one process has dtype auto, not int8." in text
    assert "target: 5%" not in text
    assert "take +" in write_results(RESULT, tmp_path)[0].read_text()


def test_a_busy_machine_is_told() -> None:
    console = Console(record=True, width=200)
    print_result(RESULT, console)
    text = console.export_text()
    assert text.count("The machine was busy: others took 30%") == 1


def test_every_figure_is_in_the_json(tmp_path: Path) -> None:
    found = json.loads(write_results(RESULT, tmp_path)[1].read_text())
    assert found["paced"]["load"]["stages"]["total"]["p50"] == PACED.load.stages.total.p50
    assert found["fast"]["resources"]["generator"]["peak_rss_bytes"] == 700 * 2**20
    assert found["in_process"]["real_time_factor"] == 0.7
    assert found["overhead"]["cpu_share"] == 2.0 / 0.9 - 1


def test_the_clock_of_the_machine_counts_what_is_available() -> None:
    before = time.monotonic()
    use = MachineClock().use({})
    assert 0 <= use.available_cpu_seconds <= (time.monotonic() - before) * (os.cpu_count() or 1)
    assert use.others_cpu_seconds >= 0
