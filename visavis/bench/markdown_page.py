"""What the dated pages under benchmarks/results have in common."""

from __future__ import annotations

from collections.abc import Iterator

from visavis.bench.surroundings import Surroundings


def dated(where: Surroundings) -> str:
    """The beginning of a result's name."""
    return where.date.replace(":", "").replace("-", "")[:13]


def heading_lines(where: Surroundings) -> Iterator[str]:
    """What every dated page names."""
    yield f"- command: `{where.command}`"
    yield f"- commit: {where.commit}"
    yield f"- date: {where.date}"
    yield f"- hardware: {where.processor}, {where.cores} cores, {where.memory_bytes / 2**30:.0f} GiB"
    yield f"- software: Python {where.python}, torch {where.torch}, grpcio {where.grpcio}"


def header(first: str, *others: str) -> Iterator[str]:
    """The head of a Markdown table; all but the first column are numbers."""
    yield row(first, *others)
    yield row("---", *("---:" for _ in others))


def row(*cells: str) -> str:
    """One row of a Markdown table."""
    return f"| {' | '.join(cells)} |"
