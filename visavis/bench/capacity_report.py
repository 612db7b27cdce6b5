"""Shows and writes what `visavis bench capacity` found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from visavis.bench.capacity_plan import MOST_GPUS, Assumptions, CapacityPlan, Measured
from visavis.bench.gateway_cost import GatewayCost
from visavis.bench.json_file import write_json
from visavis.bench.markdown_page import dated, header, heading_lines, row
from visavis.bench.placement_cost import PlacementCost
from visavis.bench.redis_replay import ReplayFigures
from visavis.bench.redis_traffic import RedisTraffic
from visavis.bench.resources import MachineUse
from visavis.bench.surroundings import Surroundings
from visavis.bench.units import milliseconds, percent

SCHEMA: Final = "visavis.capacity/1"


@dataclass(frozen=True, slots=True)
class CapacityFindings:
    """One `visavis bench capacity`."""

    schema: str
    surroundings: Surroundings
    machine: MachineUse
    traffic: RedisTraffic
    replay: ReplayFigures
    placement: tuple[PlacementCost, ...]
    gateways: tuple[GatewayCost, ...]
    measured: Measured
    assumed: Assumptions
    plan: CapacityPlan


def print_findings(found: CapacityFindings, console: Console) -> None:
    """Tables for the terminal."""
    for title, head, rows in _tables(found):
        table = Table(title=title, title_justify="left")
        for index, name in enumerate(head):
            table.add_column(name, justify="right" if index else "left")
        for cells in rows:
            table.add_row(*cells)
        console.print(table)
    for each in found.plan.resources:
        console.print(f"{each.name}: {each.arithmetic}", highlight=False, markup=False)


def write_findings(found: CapacityFindings, folder: Path) -> list[Path]:
    """A dated page and the same as JSON; returns their paths."""
    stem = f"{dated(found.surroundings)}-capacity-{found.assumed.gpus}"
    page, figures = folder / f"{stem}.md", folder / f"{stem}.json"
    write_json(found, figures)
    page.write_text("\n".join(_markdown(found)) + "\n")
    return [page, figures]


def _markdown(found: CapacityFindings) -> Iterator[str]:
    assumed = found.assumed
    yield from (f"# Capacity plan, {assumed.gpus} GPUs, {found.surroundings.date[:10]}", "")
    yield from heading_lines(found.surroundings)
    yield f"- services, clients and Redis share the machine; others took {percent(found.machine.others_share)} of it"
    yield f"- assumed: {assumed.sessions_per_gpu:g} sessions a GPU, {assumed.session_seconds:g} s a session, one"
    yield f"  instance of each stage a GPU, {assumed.nic_bits_per_second / 1e9:g} Gbit/s at a node,"
    yield f"  {assumed.redis_memory_bytes / 2**30:g} GiB for Redis; all else is measured"
    for title, head, rows in _tables(found):
        yield from ("", f"## {title}", "")
        yield from header(*head)
        yield from (row(*cells) for cells in rows)
    yield from ("", "## The arithmetic", "")
    for each in found.plan.resources:
        yield f"- {each.name}: {each.arithmetic} = {each.needed:.3g} x {each.unit}"
    yield from ("", "docs/capacity.md says what to do about each.")


def _tables(found: CapacityFindings) -> Iterator[tuple[str, Sequence[str], list[tuple[str, ...]]]]:
    traffic, replay = found.traffic, found.replay
    names = sorted({*traffic.idle_per_second, *traffic.session_per_second, *traffic.session_once})
    yield (
        f"Measured: commands in Redis, {traffic.sessions} sessions of all services",
        ("command", "four idle services, 1/s", "a session, 1/s", "a session, once"),
        [
            (
                name,
                *(
                    _rate(rates, name)
                    for rates in (traffic.idle_per_second, traffic.session_per_second, traffic.session_once)
                ),
            )
            for name in names
        ],
    )
    yield (
        "Measured: one Valkey under exactly that mix",
        ("commands", "errors", "commands/s", "CPU share", "CPU a command"),
        [
            (
                str(replay.operations),
                str(replay.errors),
                f"{replay.operations_per_second:.0f}",
                percent(replay.cpu_share),
                f"{replay.cpu_seconds_per_operation * 1e6:.1f} µs",
            )
        ],
    )
    yield (
        "Measured: looking up the instances of a stage",
        ("instances", "time", "gateway CPU", "Redis CPU"),
        [
            (
                str(each.instances),
                milliseconds(each.wall_seconds),
                milliseconds(each.gateway_cpu_seconds),
                f"{each.redis_cpu_seconds * 1e3:.2f} ms",
            )
            for each in found.placement
        ],
    )
    yield (
        "Measured: one gateway process in front of instant stages",
        (
            "pictures",
            "sessions",
            "CPU a session and s",
            "memory a session",
            "Redis CPU",
            "Redis received",
            "Redis memory",
            "chunk p95",
            "client",
        ),
        [_gateway_cells(each) for each in found.gateways],
    )
    yield (
        f"{found.assumed.gpus} GPUs, {found.plan.sessions:.0f} sessions: what breaks first",
        ("resource", "unit", "needed", "first unit full at", "more units help"),
        [
            (
                each.name,
                each.unit,
                f"{each.needed:.3g}",
                f"{each.breaks_at_gpus} GPUs" if each.breaks_at_gpus < MOST_GPUS else "never",
                "yes" if each.splits else "no",
            )
            for each in found.plan.resources
        ],
    )


def _gateway_cells(each: GatewayCost) -> tuple[str, ...]:
    return (
        f"{each.sizes} {each.codec}",
        str(each.sessions),
        f"{each.cpu_seconds_per_session_second * 1e3:.2f} ms",
        f"{each.memory_bytes_per_session / 2**20:.1f} MiB",
        f"{each.redis.cpu_seconds * 1e6:.0f} µs/s",
        f"{each.redis.received_bytes / 1e3:.1f} kB/s",
        f"{each.redis.memory_bytes / 1e3:.0f} kB",
        milliseconds(each.load.chunk_seconds.p95),
        "too slow" if each.load.client_was_bottleneck else "fine",
    )


def _rate(rates: Mapping[str, float], name: str) -> str:
    return f"{rates[name]:.2f}" if name in rates else ""
