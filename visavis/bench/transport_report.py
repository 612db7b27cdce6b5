"""Shows and writes what `visavis bench transport` found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from visavis.bench.json_file import write_json
from visavis.bench.markdown_page import dated, header, heading_lines, row
from visavis.bench.transport_result import ChunkCost, MessageFigures, TransportResult, WayFigures

_MESSAGE_HEAD: Final = (
    "message",
    "bytes",
    "TCP p50",
    "TCP p95",
    "gRPC p50",
    "gRPC p95",
    "unread p50",
    "TCP MB/s",
    "gRPC MB/s",
    "TCP CPU",
    "gRPC CPU",
)
# A terminal of 80 columns has no room for them.
_ON_THE_PAGE_ONLY: Final = ("TCP p95", "unread p50", "TCP MB/s", "TCP CPU")
_CHUNK_HEAD: Final = ("chunk", "messages", "kB", "TCP", "gRPC", "of 0.96 s", "CPU")


def print_result(result: TransportResult, console: Console) -> None:
    """Tables for the terminal."""
    for title, head, rows in _tables(result):
        shown = [index for index, name in enumerate(head) if name not in _ON_THE_PAGE_ONLY]
        table = Table(title=title, title_justify="left")
        for index in shown:
            table.add_column(head[index], justify="right" if index else "left")
        for cells in rows:
            table.add_row(*(cells[index] for index in shown))
        console.print(table)


def write_result(result: TransportResult, folder: Path) -> list[Path]:
    """A dated page and the same as JSON; returns their paths."""
    stem = f"{dated(result.surroundings)}-transport"
    page, figures = folder / f"{stem}.md", folder / f"{stem}.json"
    write_json(result, figures)
    page.write_text("\n".join(_markdown(result)) + "\n")
    return [page, figures]


def _markdown(result: TransportResult) -> Iterator[str]:
    yield from (f"# Transport, {result.surroundings.date[:10]}", "")
    yield from heading_lines(result.surroundings)
    yield f"- each figure from {result.seconds:g} s; throughput with {result.window} messages on their way; client and"
    yield "  server are two processes on this machine"
    for title, head, rows in _tables(result):
        yield from ("", f"## {title}", "")
        yield from header(*head)
        yield from (row(*cells) for cells in rows)
    yield ""
    yield "Times are of a round trip, one message at a time; CPU is of client and server together, per round trip."
    yield "gRPC reads and writes protobuf on both sides as a service does; unread, it passes bytes on. A chunk's"
    yield "messages are those between client, gateway and stages, half a round trip each."


def _tables(result: TransportResult) -> Iterator[tuple[str, Sequence[str], list[tuple[str, ...]]]]:
    yield "One message there and back", _MESSAGE_HEAD, [_message_cells(each) for each in result.messages]
    yield "All messages of one chunk", _CHUNK_HEAD, [_chunk_cells(each) for each in result.chunks]


def _message_cells(each: MessageFigures) -> tuple[str, ...]:
    return (
        each.name,
        str(each.message_bytes),
        _micro(each.raw.round_trip_seconds.p50),
        _micro(each.raw.round_trip_seconds.p95),
        _micro(each.grpc.round_trip_seconds.p50),
        _micro(each.grpc.round_trip_seconds.p95),
        _micro(each.grpc_bytes.round_trip_seconds.p50),
        _rate(each, each.raw),
        _rate(each, each.grpc),
        _micro(each.raw.cpu_seconds_per_message),
        _micro(each.grpc.cpu_seconds_per_message),
    )


def _chunk_cells(each: ChunkCost) -> tuple[str, ...]:
    return (
        each.name,
        str(each.messages),
        f"{each.payload_bytes / 1000:.0f}",
        _milli(each.raw_seconds),
        _milli(each.grpc_seconds),
        f"{each.chunk_share:.2%}",
        _milli(each.cpu_seconds),
    )


def _rate(each: MessageFigures, way: WayFigures) -> str:
    return f"{way.messages_per_second * each.message_bytes / 1e6:.0f}"


def _micro(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs"


def _milli(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"
