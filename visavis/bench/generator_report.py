"""Shows and writes what `visavis bench generator` found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from visavis.bench.generator_result import GeneratorResult, ModeFigures, SessionsFigures
from visavis.bench.json_file import write_json
from visavis.bench.markdown_page import dated, header, heading_lines, row
from visavis.bench.percentiles import Percentiles
from visavis.bench.units import milliseconds
from visavis.contract import CHUNK_SECONDS

_HEAD: Final = (
    "sessions",
    "p50",
    "p95",
    "bound",
    "share",
    "fps",
    "live",
    "memory",
    "singly",
    "plain",
    "diffusers",
    "decode",
    "beside",
)
# A terminal of 80 columns has no room for them.
_ON_THE_PAGE_ONLY: Final = ("memory", "live", "decode", "beside")
# What batching four sessions should gain.
BATCHING_TARGET: Final = 1.3


def print_result(result: GeneratorResult, console: Console) -> None:
    """Tables for the terminal."""
    console.print(rates_line(result))
    for figures in result.modes:
        shown = [index for index, name in enumerate(_HEAD) if name not in _ON_THE_PAGE_ONLY]
        table = Table(title=title(figures), title_justify="left")
        for index in shown:
            table.add_column(_HEAD[index], justify="right")
        for each in figures.sessions:
            cells = _cells(each)
            table.add_row(*(cells[index] for index in shown))
        console.print(table)
        for line in _lines(figures):
            console.print(line)
    if result.gpu is None:
        console.print("GPU: not measured")


def write_result(result: GeneratorResult, folder: Path) -> list[Path]:
    """A dated page, the same as JSON, and a plot of sessions against chunk time; returns their paths."""
    from visavis.bench.charts import generator_chart

    stem = f"{dated(result.surroundings)}-generator-{'gpu' if result.gpu else 'cpu'}"
    page, figures, plot = (folder / f"{stem}.{suffix}" for suffix in ("md", "json", "svg"))
    write_json(result, figures)
    plot.write_text(generator_chart(result.modes))
    page.write_text("\n".join(_markdown(result, plot.name)) + "\n")
    return [page, figures, plot]


def title(figures: ModeFigures) -> str:
    """What was run, in words."""
    branches = "one branch" if figures.branches == 1 else f"{figures.branches} branches"
    part = "" if figures.blocks == figures.preset_blocks else f", {figures.blocks} of {figures.preset_blocks} blocks"
    return f"{figures.preset}, {figures.mode}: {figures.steps} steps, {branches}{part}"


def rates_line(result: GeneratorResult) -> str:
    """What the device gives."""
    rates = result.rates
    parts = [f"{result.precision} products {_scaled(rates.linear_operations)}FLOP/s"]
    if rates.other_operations != rates.linear_operations:
        parts.append(f"others {_scaled(rates.other_operations)}FLOP/s")
    parts.append(f"copies {_scaled(rates.moved_bytes)}B/s")
    return "The device, measured in this run: " + ", ".join(parts) + "."


def _markdown(result: GeneratorResult, plot: str) -> Iterator[str]:
    yield from (f"# Generator, {result.gpu or 'CPU'}, {result.surroundings.date[:10]}", "")
    yield from heading_lines(result.surroundings)
    yield f"- GPU: {result.gpu or 'not measured'}"
    yield f"- execution: {result.execution}, {result.precision}; {result.threads} threads"
    yield f"- each figure from {result.seconds:g} s and three chunks at least; what is compared ran in turns"
    yield from ("", rates_line(result), "", f"![chunk time by sessions]({plot})")
    for figures in result.modes:
        weights = "random weights" if figures.random_weights else "trained weights"
        yield from ("", f"## {title(figures)}", "")
        yield f"{figures.picture_size} x {figures.picture_size}, {weights}. {_work_line(figures)}"
        yield ""
        yield from header(*_HEAD)
        yield from (row(*_cells(each)) for each in figures.sessions)
        for line in _lines(figures):
            yield from ("", line)
    yield from (
        "",
        "A chunk is 0.96 s of video of every session; its time includes the pass that makes the next context. What the",
        "columns mean is said in benchmarks/README.md; every figure is in the JSON beside this page.",
    )


def _work_line(figures: ModeFigures) -> str:
    one = figures.sessions[0]
    per_session = f"{one.operations / one.sessions / 1e9:.1f} GFLOP"
    return f"A chunk of a session is {per_session}; {one.sessions} of them move {one.moved_bytes / 1e9:.2f} GB."


def _lines(figures: ModeFigures) -> Iterator[str]:
    for each in figures.sessions:
        gain = each.faster_than(each.one_by_one_seconds)
        if gain is not None and each.sessions == 4:
            verdict = "met" if gain >= BATCHING_TARGET else "not met"
            target = f"target {BATCHING_TARGET}: {verdict}"
            yield f"Four sessions in one batch: {gain:.2f} times as fast as one by one ({target})."
        plain, diffusers = each.faster_than(each.plain_seconds), each.faster_than(each.diffusers_seconds)
        if plain is not None and diffusers is not None:
            yield (
                f"At {each.sessions} session(s) ours is {plain:.2f} times as fast as the plain way and {diffusers:.2f} "
                f"times as fast as diffusers' transformer."
            )
    if figures.plain_error is not None:
        yield f"Relative difference between the plain way's second chunk and ours: {figures.plain_error:.1e}."
    live = max((each.sessions for each in figures.sessions if each.keeps_up), default=0)
    yield f"Sessions whose p95 stays under {CHUNK_SECONDS} s: {live} of the numbers tried."


def _cells(each: SessionsFigures) -> tuple[str, ...]:
    return (
        str(each.sessions),
        milliseconds(each.chunk_seconds.p50),
        milliseconds(each.chunk_seconds.p95),
        milliseconds(each.bound_seconds),
        f"{each.bound_share:.0%}",
        f"{each.frames_per_second:.1f}",
        "yes" if each.keeps_up else "no",
        f"{each.memory_bytes / 2**30:.2f} GiB",
        *(
            _middle(found)
            for found in (
                each.one_by_one_seconds,
                each.plain_seconds,
                each.diffusers_seconds,
                each.decode_seconds,
                each.beside_seconds,
            )
        ),
    )


def _middle(found: Percentiles | None) -> str:
    return "–" if found is None else milliseconds(found.p50)


def _scaled(per_second: float) -> str:
    scale, name = next(((scale, name) for scale, name in ((1e12, "T"), (1e9, "G")) if per_second >= scale), (1e6, "M"))
    return f"{per_second / scale:.1f} {name}"
