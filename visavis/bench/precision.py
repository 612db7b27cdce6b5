"""`visavis bench precision`: what products in fewer bits do to latents and pictures."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from visavis.bench.json_file import write_json
from visavis.bench.markdown_page import dated, header, heading_lines, row
from visavis.bench.precision_result import SCHEMA, ChunkDifference, PrecisionResult
from visavis.bench.surroundings import surroundings
from visavis.cli.errors import CommandError
from visavis.openmp import wait_asleep

_HEAD: Final = ("chunk", "same past: error", "PSNR", "own past: error", "PSNR")
# Chunks that a table shows; all are in the JSON.
_SHOWN: Final = (1, 2, 3, 5, 10, 20, 30, 60, 100)


def run(options: argparse.Namespace) -> int:
    """Measures, prints and writes."""
    if not 1 <= options.chunks <= 10_000:
        raise CommandError(f"--chunks is between 1 and 10000, not {options.chunks}")
    # Before torch is imported.
    wait_asleep()
    console = Console()
    result = measure(options.preset, options.dtype, options.chunks, console)
    table = Table(title=title(result), title_justify="left")
    for name in _HEAD:
        table.add_column(name, justify="right")
    for cells in _rows(result.chunks):
        table.add_row(*cells)
    console.print(table)
    for line in summary(result):
        console.print(line)
    if options.json:
        write_json(result, options.json)
        console.print(f"wrote {options.json}")
    if not options.no_result:
        for path in write_result(result, options.results):
            console.print(f"wrote {path}")
    return 0


def measure(preset: str, precision: str, chunks: int, console: Console) -> PrecisionResult:
    """Both chains. Raises CommandError for what this machine has not."""
    from visavis.bench.precision_chains import PrecisionChains

    try:
        with console.status("loading") as status:
            chains = PrecisionChains(preset, precision)
            found = chains.run(chunks, status.update)
    except ValueError as error:
        raise CommandError(str(error)) from error
    return PrecisionResult(
        schema=SCHEMA,
        surroundings=surroundings(),
        preset=preset,
        precision=precision,
        random_weights=chains.random_weights,
        cpu_ratio=chains.exact_clock.seconds / chains.rounded_clock.seconds,
        chunks=tuple(found),
    )


def write_result(result: PrecisionResult, folder: Path) -> list[Path]:
    """A dated page and the same as JSON; returns their paths."""
    stem = f"{dated(result.surroundings)}-precision-{result.precision}"
    page, figures = folder / f"{stem}.md", folder / f"{stem}.json"
    write_json(result, figures)
    page.write_text("\n".join(_markdown(result)) + "\n")
    return [page, figures]


def title(result: PrecisionResult) -> str:
    """What was compared, in words."""
    weights = ", random weights" if result.random_weights else ""
    return f"{result.preset}, {result.precision} against float32{weights}"


def summary(result: PrecisionResult) -> Iterator[str]:
    """What there is to say about all chunks."""
    last = result.chunks[-1]
    worst = max(result.chunks, key=lambda chunk: chunk.step_error)
    yield f"Chunks took float32 {result.cpu_ratio:.2f} times the processor time that they took {result.precision}."
    yield (
        f"Rounding alone changes a chunk's latents by {worst.step_error:.2%} at most; after {last.chunk_index} chunks "
        f"the two have drifted {last.drift_error:.2%} apart."
    )
    if result.random_weights:
        yield "Weights are random: what a trained transformer does with its rounding is not shown by this."


def _markdown(result: PrecisionResult) -> Iterator[str]:
    yield from (f"# Precision, {title(result)}, {result.surroundings.date[:10]}", "")
    yield from heading_lines(result.surroundings)
    yield ""
    yield from header(*_HEAD)
    yield from (row(*cells) for cells in _rows(result.chunks))
    for line in summary(result):
        yield from ("", line)
    yield from (
        "",
        "Errors are relative (RMS), PSNRs of decoded pictures; every chunk is in the JSON beside this page.",
    )


def _rows(chunks: Sequence[ChunkDifference]) -> Iterator[tuple[str, ...]]:
    for chunk in chunks:
        if chunk.chunk_index in _SHOWN or chunk is chunks[-1]:
            yield (
                str(chunk.chunk_index),
                f"{chunk.step_error:.2%}",
                f"{chunk.step_psnr:.1f} dB",
                f"{chunk.drift_error:.2%}",
                f"{chunk.drift_psnr:.1f} dB",
            )
