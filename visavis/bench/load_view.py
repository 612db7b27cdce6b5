"""What the terminal shows while a load runs, and afterwards."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from visavis.bench.capacity_search import CapacityResult
from visavis.bench.load_figures import LoadFigures
from visavis.bench.load_tally import LoadTally
from visavis.bench.load_words import load_counts
from visavis.bench.percentiles import Percentiles
from visavis.bench.stage_table import stage_table
from visavis.bench.units import milliseconds

RECENT_SECONDS: Final = 10.0
# Where there is no terminal: a line so often.
LINE_SECONDS: Final = 10.0


class LoadView:
    """For `with`; `look` is what `load_run.run_load` calls."""

    def __init__(self, console: Console, title: str, seconds: float) -> None:
        self._console = console
        self._title = title
        self._seconds = seconds
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._said = time.monotonic()

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def look(self, tally: LoadTally, moment: float) -> None:
        """Shows how it goes."""
        if self._live is not None:
            self._live.update(Group(Text(self._head(tally, moment)), _recent_table(tally, moment)), refresh=True)
        elif time.monotonic() - self._said >= LINE_SECONDS:
            self._said = time.monotonic()
            late = sum(value > 0 for value in tally.late.values)
            self._console.print(
                f"{self._head(tally, moment)}; {late} of {len(tally.late.values)} chunks late", highlight=False
            )

    def _head(self, tally: LoadTally, moment: float) -> str:
        when = "the clients start" if moment < 0 else f"{moment:.0f} of {self._seconds:.0f} s"
        ended = "".join(f", {tally.outcomes[name]} {name}" for name in ("rejected", "failed") if tally.outcomes[name])
        return f"{self._title}: {when}, {tally.sessions_running} session(s) running{ended}"


def print_figures(figures: LoadFigures, console: Console) -> None:
    """The whole of a run."""
    table = _latency_table("the whole run")
    for name, of in (
        ("chunk", figures.chunk_seconds),
        ("first frame of an utterance", figures.first_frame_seconds),
        ("interruption", figures.interruption_seconds),
        ("session start", figures.start_seconds),
    ):
        _add_latency(table, name, of)
    console.print(table)
    console.print(stage_table(figures.stages, "time per chunk, as the server tells it"))
    for name, value in load_counts(figures):
        console.print(f"{name:22} {escape(value)}", highlight=False)
    for reason, count in figures.reasons.items():
        console.print(f"{count:6} x {escape(reason)}", highlight=False)
    print_client(figures, console)


def print_client(figures: LoadFigures, console: Console) -> None:
    """Says it when the client was too slow itself."""
    for client in figures.clients:
        if client.was_bottleneck:
            console.print(
                f"The client was too slow itself (process {client.process}: loop lag "
                f"{milliseconds(client.loop_lag_p95_seconds)}, send lag {milliseconds(client.send_lag_p95_seconds)}, "
                f"{client.cpu_share_p95:.0%} of a core, p95): these latencies are partly its own. Use more "
                "--processes, a machine of its own, or fewer sessions.",
                style="bold yellow",
                highlight=False,
            )


def print_search(search: CapacityResult, console: Console) -> None:
    """The steps of a search and its answer."""
    table = Table(title="search", title_justify="left")
    for heading in ("sessions", "chunks", "in time", "p50", "p95", "p99", "first frame p95"):
        table.add_column(heading, justify="right")
    table.add_column("promises")
    for step in search.steps:
        of, first = step.figures.chunk_seconds, step.figures.first_frame_seconds
        cells = (
            str(step.figures.chunks),
            f"{step.figures.in_time_share:.2%}",
            *map(milliseconds, (of.p50, of.p95, of.p99)),
        )
        verdict = "stopped" if step.figures.stopped else "; ".join(step.broken) or "kept"
        table.add_row(str(step.sessions), *cells, milliseconds(first.p95), escape(verdict))
    console.print(table)
    limit = " (the most that was tried)" if search.reached_limit else ""
    console.print(f"sessions sustained     {search.sustained_sessions}{limit}", style="bold", highlight=False)
    if search.client_was_bottleneck:
        console.print("A step broke while the client was too slow itself: the server may sustain more.", style="yellow")


def _recent_table(tally: LoadTally, moment: float) -> Table:
    begin = moment - RECENT_SECONDS
    table = _latency_table(f"the last {RECENT_SECONDS:.0f} s")
    for name, column in (
        ("chunk", tally.waits),
        ("first frame of an utterance", tally.first_waits),
        ("interruption", tally.interruptions),
    ):
        _add_latency(table, name, Percentiles.of(column.since(begin)))
    late = tally.late.since(begin)
    whole = sum(value > 0 for value in tally.late.values)
    table.add_row("late chunks", f"{sum(value > 0 for value in late)} of {len(late)}")
    table.add_row("  since the start", f"{whole} of {len(tally.late.values)}")
    words = [health[-1] for health in tally.health.values() if health]
    if words:
        lag = max(max(word.loop_lag_seconds, word.send_lag_seconds) for word in words)
        table.add_row("lag of the clients", "", milliseconds(lag))
    return table


def _latency_table(title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in ("count", "p50", "p95", "p99", "worst"):
        table.add_column(heading, justify="right")
    return table


def _add_latency(table: Table, name: str, of: Percentiles) -> None:
    table.add_row(name, str(of.count), *map(milliseconds, (of.p50, of.p95, of.p99, of.maximum)))
