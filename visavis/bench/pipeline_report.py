"""Shows and writes what `visavis bench pipeline` found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from visavis.bench.json_file import write_json
from visavis.bench.load_view import print_client, print_search
from visavis.bench.markdown_page import dated, header, heading_lines, row
from visavis.bench.percentiles import Percentiles
from visavis.bench.pipeline_result import OVERHEAD_TARGET, FastFigures, PacedFigures, PipelineResult
from visavis.bench.resources import MachineUse, ResourceUse
from visavis.bench.stage_table import STAGES, StageFigures, stage_table
from visavis.bench.units import milliseconds, percent

_MEBI = 2**20
# More than this taken by others, and times say more about them.
BUSY_SHARE = 0.05


def print_result(result: PipelineResult, console: Console) -> None:
    """Tables for the terminal."""
    if result.model.random_weights:
        console.print(f"model {result.model.name} has random weights: times are real, pictures are noise")
    for name, stages, run, summary in _runs(result):
        console.print(stage_table(stages, f"{name}: time per chunk of 0.96 s"))
        console.print(summary)
        console.print(_resource_table(run.resources))
        console.print(_machine_line(run.machine, _chunks(run)))
    print_client(result.paced.load, console)
    if result.search is not None:
        print_search(result.search, console)
    for line in _alone_lines(result):
        console.print(line)


def write_results(result: PipelineResult, folder: Path) -> list[Path]:
    """A dated page, the same as JSON, and the plot of a search; returns their paths."""
    stem = f"{dated(result.surroundings)}-pipeline-{result.preset}-{result.sessions}"
    page, figures, plot = (folder / f"{stem}.{suffix}" for suffix in ("md", "json", "svg"))
    write_json(result, figures)
    written = [page, figures]
    if result.search is not None:
        from visavis.bench.charts import capacity_chart

        plot.write_text(capacity_chart(result.search.steps))
        written.append(plot)
    page.write_text("\n".join(_markdown(result, stem)) + "\n")
    return written


def _markdown(result: PipelineResult, stem: str) -> Iterator[str]:
    weights = "random" if result.model.random_weights else result.model.fingerprint[:12]
    yield f"# Pipeline, {result.preset}, {result.sessions} session(s), {result.surroundings.date[:10]}"
    yield ""
    yield from heading_lines(result.surroundings)
    yield f"- model: {result.model.name}, weights {weights}; {', '.join(result.settings) or 'default settings'}"
    yield f"- speech: {result.speech_seconds:.1f} s a session; services and clients share the machine"
    yield f"- paced: players hold {result.playout_buffer_seconds:g} s of video before they begin"
    for name, stages, run, summary in _runs(result):
        yield from ("", f"## {name.capitalize()}", "", summary, "")
        yield from _stage_rows(stages)
        yield ""
        yield from _resource_rows(run.resources)
        yield from ("", _machine_line(run.machine, _chunks(run)))
    if result.paced.load.client_was_bottleneck:
        yield from ("", "The paced client was too slow itself: its latencies are partly its own.")
    yield from _search_rows(result, stem)
    lines = list(_alone_lines(result))
    if lines:
        yield from ("", "## The same models in one process, one after the other", "", *lines)
    yield from ("", "Every figure is in the JSON beside this page; benchmarks/README.md defines them.")


def _search_rows(result: PipelineResult, stem: str) -> Iterator[str]:
    search = result.search
    if search is None:
        return
    yield from ("", "## Sessions", "")
    limit = ", the most that was tried" if search.reached_limit else ""
    yield f"{search.sustained_sessions} session(s) sustained with 99 % of chunks in time{limit}."
    if search.client_was_bottleneck:
        yield "A step broke while the client was too slow itself: the services may sustain more."
    yield from ("", f"![sessions against chunk latency]({stem}.svg)", "")
    yield from header("sessions", "chunks", "in time", "p50", "p95", "p99", "first frame p95")
    for step in search.steps:
        of, first = step.figures.chunk_seconds, step.figures.first_frame_seconds
        times = map(milliseconds, (of.p50, of.p95, of.p99, first.p95))
        yield row(str(step.sessions), str(step.figures.chunks), percent(step.figures.in_time_share), *times)


def _alone_lines(result: PipelineResult) -> Iterator[str]:
    alone, overhead = result.in_process, result.overhead
    if alone is not None:
        yield (
            f"Real-time factor {alone.real_time_factor:.2f}, chunk p50 {milliseconds(alone.chunk_seconds.p50)}, "
            f"p95 {milliseconds(alone.chunk_seconds.p95)}, {alone.cpu_seconds_per_chunk:.2f} CPU seconds a chunk, "
            f"{alone.threads} torch threads, dtype {alone.run.dtype}, sampling {alone.run.sampling}. A large "
            f"{alone.precision} product runs at {alone.matrix_operations_per_second / 1e9:.0f} GFLOP/s in this process."
        )
        if overhead is None:
            differences = "; ".join(alone.run.differences(result.run))
            yield f"Not compared with the services, which ran otherwise: one process has {differences}."
    if overhead is not None:
        yield (
            f"The services add {milliseconds(overhead.between_seconds)} to a paced chunk between its stages, "
            f"{overhead.between_share:+.1%} of its time in one process, and take {overhead.cpu_share:+.1%} of its "
            f"processor time (target: {OVERHEAD_TARGET:.0%} or less)."
        )


def _runs(result: PipelineResult) -> Iterator[tuple[str, StageFigures, FastFigures | PacedFigures, str]]:
    fast, paced = result.fast, result.paced
    yield "fast", fast.stages, fast, _fast_line(fast)
    yield "paced", paced.load.stages, paced, _paced_line(paced)


def _chunks(run: FastFigures | PacedFigures) -> int:
    return run.chunks if isinstance(run, FastFigures) else run.load.chunks


def _fast_line(fast: FastFigures) -> str:
    return f"Real-time factor {fast.real_time_factor:.2f}; first frame {_spread(fast.time_to_first_frame_seconds)}."


def _paced_line(paced: PacedFigures) -> str:
    load = paced.load
    line = (
        f"Real-time factor {paced.real_time_factor:.2f}; first frame {_spread(load.first_frame_seconds)}; "
        f"chunk latency {_spread(load.chunk_seconds)}; late chunks {load.late_chunks} of {load.chunks}"
    )
    for outcome in ("rejected", "failed"):
        if load.sessions[outcome]:
            line += f"; {load.sessions[outcome]} session(s) {outcome}: {', '.join(load.reasons)}"
    return line + "."


def _spread(of: Percentiles) -> str:
    if of.count <= 1:
        return milliseconds(of.p50)
    return f"p50 {milliseconds(of.p50)}, p95 {milliseconds(of.p95)}, p99 {milliseconds(of.p99)}"


def _machine_line(machine: MachineUse, chunks: int) -> str:
    per_chunk = machine.services_cpu_seconds / max(chunks, 1)
    line = (
        f"CPU time of {machine.available_cpu_seconds:.0f} s: services {machine.services_cpu_seconds:.1f} s "
        f"({per_chunk:.2f} s a chunk), clients {machine.clients_cpu_seconds:.1f} s, "
        f"others {machine.others_cpu_seconds:.1f} s."
    )
    if machine.others_share > BUSY_SHARE:
        line += f" The machine was busy: others took {machine.others_share:.0%} of it, so times here are too long."
    return line


def _stage_rows(stages: StageFigures) -> Iterator[str]:
    yield from header("stage", "p50", "p95", "p99", "waited p95")
    for stage in STAGES:
        computed, queued = stages.computed[stage], stages.queued[stage]
        times = map(milliseconds, (computed.p50, computed.p95, computed.p99, queued.p95))
        yield row(stage.replace("_", " "), *times)
    total = stages.total
    yield row("whole chunk", *map(milliseconds, (total.p50, total.p95, total.p99)), "")


def _resource_cells(resources: Mapping[str, ResourceUse]) -> Iterator[Sequence[str]]:
    for name, use in resources.items():
        yield name, f"{use.peak_rss_bytes / _MEBI:.0f} MiB", f"{use.cpu_seconds:.1f} s"


def _resource_rows(resources: Mapping[str, ResourceUse]) -> Iterator[str]:
    yield from header("service with its worker", "peak RSS", "CPU time")
    for cells in _resource_cells(resources):
        yield row(*cells)


def _resource_table(resources: Mapping[str, ResourceUse]) -> Table:
    table = Table()
    table.add_column("service")
    table.add_column("peak RSS", justify="right")
    table.add_column("CPU time", justify="right")
    for cells in _resource_cells(resources):
        table.add_row(*cells)
    return table
