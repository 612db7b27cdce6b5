"""Shows and writes what `visavis bench pipeline` found."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from visavis.bench.pipeline_result import PaceFigures, PipelineResult
from visavis.bench.stage_table import STAGES, stage_table

_MEBI = 2**20
# More than this taken by others, and times say more about them.
BUSY_SHARE = 0.05


def print_result(result: PipelineResult, console: Console) -> None:
    """Tables for the terminal."""
    if result.model.random_weights:
        console.print(f"model {result.model.name} has random weights: times are real, pictures are noise")
    for pace in (result.fast, result.paced):
        console.print(stage_table(pace.stages, f"{pace.pace}: time per chunk of 0.96 s"))
        console.print(_summary_line(pace))
        console.print(_resource_table(pace))
        console.print(_machine_line(pace))
    if result.in_process is not None:
        alone = result.in_process
        console.print(
            f"in one process ({alone.threads} threads): real-time factor {alone.real_time_factor:.2f}, "
            f"chunk p50 {_ms(alone.chunk_seconds.p50)}; "
            f"a large matrix product runs at {alone.matrix_operations_per_second / 1e9:.0f} GFLOP/s"
        )


def write_json(result: PipelineResult, path: Path) -> None:
    """Every figure; times in seconds, memory in bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(result), indent=2) + "\n")


def write_markdown(result: PipelineResult, folder: Path) -> Path:
    """A dated page; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    moment = result.surroundings.date.replace(":", "").replace("-", "")[:13]
    path = folder / f"{moment}-pipeline-{Path(result.preset).name}-{result.sessions}.md"
    path.write_text("\n".join(_markdown(result)) + "\n")
    return path


def _markdown(result: PipelineResult) -> Iterator[str]:
    where = result.surroundings
    weights = "random" if result.model.random_weights else result.model.fingerprint[:12]
    yield f"# Pipeline, {result.preset}, {result.sessions} session(s), {where.date[:10]}"
    yield ""
    yield f"- command: `{where.command}`"
    yield f"- commit: {where.commit}"
    yield f"- date: {where.date}"
    yield f"- hardware: {where.processor}, {where.cores} cores, {where.memory_bytes / 2**30:.0f} GiB"
    yield f"- software: Python {where.python}, torch {where.torch}, grpcio {where.grpcio}"
    yield f"- model: {result.model.name}, weights {weights}; worker threads: {result.threads}"
    yield f"- speech: {result.speech_seconds:.1f} s a session; services and clients share the machine"
    for pace in (result.fast, result.paced):
        yield from ("", f"## {pace.pace.capitalize()}", "", _summary_line(pace), "")
        yield from _stage_rows(pace)
        yield ""
        yield from _resource_rows(pace)
        yield from ("", _machine_line(pace))
    if result.in_process is not None:
        alone = result.in_process
        yield from ("", "## The same models in one process, one after the other", "")
        yield (
            f"Real-time factor {alone.real_time_factor:.2f}, chunk p50 {_ms(alone.chunk_seconds.p50)}, "
            f"p95 {_ms(alone.chunk_seconds.p95)}, {alone.threads} torch threads. A large matrix product in the models' "
            f"compute type runs at {alone.matrix_operations_per_second / 1e9:.0f} GFLOP/s in this process."
        )
    yield from ("", "The figures are defined in `visavis/bench/pipeline_result.py`.")


def _summary_line(pace: PaceFigures) -> str:
    first = pace.time_to_first_frame_seconds
    line = f"Real-time factor {pace.real_time_factor:.2f}; time to first frame p50 {_ms(first.p50)}"
    if first.count > 1:
        line += f", worst {_ms(first.maximum)}"
    if pace.pace == "paced":
        line += f"; late chunks {pace.late_chunks} of {pace.chunks}"
    return line + "."


def _machine_line(pace: PaceFigures) -> str:
    machine = pace.machine
    per_chunk = machine.services_cpu_seconds / pace.chunks
    line = (
        f"CPU time of {machine.available_cpu_seconds:.0f} s: services {machine.services_cpu_seconds:.1f} s "
        f"({per_chunk:.2f} s a chunk), clients {machine.clients_cpu_seconds:.1f} s, "
        f"others {machine.others_cpu_seconds:.1f} s."
    )
    if machine.others_share > BUSY_SHARE:
        line += f" The machine was busy: others took {machine.others_share:.0%} of it, so times here are too long."
    return line


def _stage_rows(pace: PaceFigures) -> Iterator[str]:
    yield from _header("stage", "p50", "p95", "p99", "waited p95")
    for stage in STAGES:
        computed, queued = pace.stages.computed[stage], pace.stages.queued[stage]
        cells = (_ms(computed.p50), _ms(computed.p95), _ms(computed.p99), _ms(queued.p95))
        yield _row(stage.replace("_", " "), *cells)
    total = pace.stages.total
    yield _row("whole chunk", _ms(total.p50), _ms(total.p95), _ms(total.p99), "")


def _resource_cells(pace: PaceFigures) -> Iterator[Sequence[str]]:
    for name, use in pace.resources.items():
        yield name, f"{use.peak_rss_bytes / _MEBI:.0f} MiB", f"{use.cpu_seconds:.1f} s"


def _resource_rows(pace: PaceFigures) -> Iterator[str]:
    yield from _header("service with its worker", "peak RSS", "CPU time")
    for cells in _resource_cells(pace):
        yield _row(*cells)


def _resource_table(pace: PaceFigures) -> Table:
    table = Table()
    table.add_column("service")
    table.add_column("peak RSS", justify="right")
    table.add_column("CPU time", justify="right")
    for cells in _resource_cells(pace):
        table.add_row(*cells)
    return table


def _header(first: str, *others: str) -> Iterator[str]:
    yield _row(first, *others)
    yield _row("---", *("---:" for _ in others))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
