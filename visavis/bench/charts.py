"""Plots of results as SVG text, drawn by matplotlib without a display."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from visavis.contract import CHUNK_SECONDS

if TYPE_CHECKING:
    from visavis.bench.capacity_search import SearchStep
    from visavis.bench.generator_result import ModeFigures
    from visavis.bench.load_figures import LoadBin

BLUE, LIGHT_BLUE, ORANGE, GREY = "#1f5fa8", "#9dc0e6", "#c8501e", "#8a8f98"
_STYLE: Final[dict[Any, Any]] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e6ea",
    "legend.frameon": False,
    "svg.fonttype": "none",
}


def latency_chart(bins: Sequence[LoadBin]) -> str:
    """Chunk latency over the run."""
    with _drawing("latency") as (axes, drawn):
        moments = [each.moment for each in bins]
        axes.plot(moments, _milliseconds([b.chunk_p95_seconds for b in bins]), color=BLUE, label="p95")
        axes.plot(moments, _milliseconds([b.chunk_p50_seconds for b in bins]), color=LIGHT_BLUE, label="p50")
        _ask(axes, "seconds since the start", "chunk latency (ms)")
        _legend(axes)
    return drawn[0]


def sessions_chart(bins: Sequence[LoadBin]) -> str:
    """Sessions and late chunks over the run."""
    with _drawing("sessions") as (axes, drawn):
        moments = [each.moment for each in bins]
        axes.step(moments, [each.sessions for each in bins], where="post", color=BLUE, label="sessions")
        _ask(axes, "seconds since the start", "sessions")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        shares = axes.twinx()
        shares.grid(visible=False)
        width = moments[1] - moments[0] if len(moments) > 1 else 1.0
        late = [100 * (each.late_share or 0.0) for each in bins]
        shares.bar(moments, late, width=width, align="edge", color=ORANGE, alpha=0.6, label="late chunks")
        shares.set_ylabel("late chunks (%)")
        shares.set_ylim(0, max(5.0, *late) * 1.1)
        shares.spines["right"].set_visible(True)
    return drawn[0]


def capacity_chart(steps: Sequence[SearchStep]) -> str:
    """Sessions against chunk latency, each step of a search once; broken ones are hollow."""
    ordered = sorted((step for step in steps if step.figures.chunk_seconds.count), key=lambda step: step.sessions)
    with _drawing("capacity") as (axes, drawn):
        sessions = [step.sessions for step in ordered]
        for name, color, values in (
            ("p99", GREY, [step.figures.chunk_seconds.p99 for step in ordered]),
            ("p95", BLUE, [step.figures.chunk_seconds.p95 for step in ordered]),
            ("p50", LIGHT_BLUE, [step.figures.chunk_seconds.p50 for step in ordered]),
        ):
            axes.plot(sessions, _milliseconds(values), color=color, label=name, zorder=2)
        for step in ordered:
            face = "white" if step.broken else BLUE
            height = step.figures.chunk_seconds.p95 * 1000
            axes.plot([step.sessions], [height], "o", color=ORANGE if step.broken else BLUE, mfc=face, zorder=3)
        axes.axhline(CHUNK_SECONDS * 1000, color=ORANGE, linewidth=1, linestyle=":", label="one chunk")
        _ask(axes, "live sessions (hollow: a promise broke)", "chunk latency (ms)")
        _legend(axes)
    return drawn[0]


def generator_chart(modes: Sequence[ModeFigures]) -> str:
    """Sessions in one batch against the time of their chunks: p95, and what is possible at least."""
    with _drawing("generator") as (axes, drawn):
        for figures, color in zip(modes, itertools.cycle((BLUE, ORANGE, GREY, LIGHT_BLUE)), strict=False):
            sessions = [each.sessions for each in figures.sessions]
            name = f"{figures.preset} {figures.mode}"
            times = _milliseconds([each.chunk_seconds.p95 for each in figures.sessions])
            axes.plot(sessions, times, "o-", color=color, label=f"{name} p95")
            bounds = _milliseconds([each.bound_seconds for each in figures.sessions])
            axes.plot(sessions, bounds, "--", color=color, linewidth=1, label=f"{name} bound")
        axes.axhline(CHUNK_SECONDS * 1000, color=GREY, linewidth=1, linestyle=":", label="one chunk")
        _ask(axes, "sessions in one batch", "chunk time (ms)")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return drawn[0]


def _ask(axes: Axes, across: str, up: str) -> None:
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _legend(axes: Axes) -> None:
    """Above the plot, where it covers nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4)


def _milliseconds(seconds: Sequence[float | None]) -> list[float]:
    return [math.nan if each is None else each * 1000 for each in seconds]


@contextmanager
def _drawing(name: str) -> Iterator[tuple[Axes, list[str]]]:
    """Axes to draw on; the SVG is in the list afterwards. `name` keeps ids apart where several meet on one page."""
    drawn: list[str] = []
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(8, 3.2), layout="constrained")
        yield figure.subplots(), drawn
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        text = file.getvalue()
    drawn.append(text[text.index("<svg") :])
