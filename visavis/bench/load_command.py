"""`visavis load`: paced live clients against a running gateway, and what they saw."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from rich.console import Console

from visavis.bench.capacity_search import CapacityResult, SearchStep, find_capacity
from visavis.bench.json_file import write_json
from visavis.bench.load_figures import SloLimits, broken_promises, load_bins, load_figures
from visavis.bench.load_inputs import read_clips, read_tls, talked_to_avatar
from visavis.bench.load_plan import LoadPlan
from visavis.bench.load_report import write_html
from visavis.bench.load_result import SCHEMA, LoadRequest, LoadResult
from visavis.bench.load_run import run_load
from visavis.bench.load_tally import LoadTally
from visavis.bench.load_view import LoadView, print_figures, print_search
from visavis.bench.metrics_watch import MetricsWatch
from visavis.bench.ramp import RampError, RampPoint, parse_ramp
from visavis.bench.server_view import MetricsUnreachable
from visavis.bench.surroundings import surroundings
from visavis.cli.errors import CommandError
from visavis.client import Speech, Tls, VideoFormat
from visavis.client.records import ServerInfo

_PROMISE_BROKEN: Final = 1


def run_load_command(options: argparse.Namespace) -> int:
    """Measures, shows and writes: 0 when every promise was kept, 1 when one was broken."""
    _ramp(options, options.sessions)  # what is wrong with it is told before anything else happens
    files, speech = read_clips(options.speech)
    limits = SloLimits(options.slo_in_time, options.slo_chunk_p95, options.slo_first_frame_p95)
    tls = read_tls(options)
    console = Console()
    with talked_to_avatar(options.target, tls, options.avatar) as (server, avatar_id):
        plan = _plan(options, tls, avatar_id, speech)
        if server.model.random_weights:
            console.print(f"The weights of '{server.model.name}' are random: times are real, pictures are noise.")
        try:
            with MetricsWatch(options.metrics) as watch:
                tally, search = _measure(options, plan, limits, console)
        except MetricsUnreachable as error:
            raise CommandError(str(error)) from error
    return _report(_request(options, plan, files), server, limits, tally, search, watch, options, console)


def _measure(
    options: argparse.Namespace, plan: LoadPlan, limits: SloLimits, console: Console
) -> tuple[LoadTally, CapacityResult | None]:
    """One run; or a search, with the run of its best step, or of its last when none was good."""
    if not options.find_capacity:
        return _run_shown(plan, console, f"{plan.most_sessions} session(s)"), None

    tallies: dict[int, LoadTally] = {}

    def measure(sessions: int) -> SearchStep:
        step_plan = replace(plan, ramp=_ramp(options, sessions))
        tallies[sessions] = _run_shown(step_plan, console, f"search, {sessions} session(s)")
        figures = load_figures(tallies[sessions])
        return SearchStep(sessions, figures, tuple(broken_promises(figures, limits)))

    search = find_capacity(options.sessions, measure)
    shown = search.sustained_sessions or search.steps[-1].sessions
    tallies[shown].stopped = search.steps[-1].figures.stopped
    return tallies[shown], search


def _run_shown(plan: LoadPlan, console: Console, title: str) -> LoadTally:
    with LoadView(console, title, plan.seconds) as view:
        return run_load(plan, view.look)


def _report(
    request: LoadRequest,
    server: ServerInfo,
    limits: SloLimits,
    tally: LoadTally,
    search: CapacityResult | None,
    watch: MetricsWatch,
    options: argparse.Namespace,
    console: Console,
) -> int:
    figures = load_figures(tally)
    broken = broken_promises(figures, limits)
    result = LoadResult(
        schema=SCHEMA,
        surroundings=surroundings(),
        request=request,
        server=server,
        limits=limits,
        broken=tuple(broken),
        figures=figures,
        bins=tuple(load_bins(tally)),
        server_views=watch.views,
        search=search,
    )
    print_figures(figures, console)
    if search is not None:
        print_search(search, console)
    else:
        for each in broken:
            console.print(f"broken: {each}", style="bold red", markup=False, highlight=False)
        if not broken:
            console.print(f"every promise kept with {figures.most_sessions} session(s)", style="bold green")
    if options.json:
        write_json(result, options.json)
        console.print(f"wrote {options.json}")
    if options.html:
        write_html(result, options.html)
        console.print(f"wrote {options.html}")
    if figures.stopped:
        raise KeyboardInterrupt
    good = search.sustained_sessions > 0 if search is not None else not broken
    return 0 if good else _PROMISE_BROKEN


def _ramp(options: argparse.Namespace, sessions: int) -> tuple[RampPoint, ...]:
    try:
        return parse_ramp(options.ramp, sessions=sessions, duration_seconds=options.duration)
    except RampError as error:
        raise CommandError(str(error)) from error


def _plan(options: argparse.Namespace, tls: Tls | None, avatar_id: str, speech: Sequence[Speech]) -> LoadPlan:
    formats: dict[str, Callable[[], VideoFormat]] = {
        "jpeg": VideoFormat.jpeg,
        "raw": VideoFormat.raw,
        "h264": VideoFormat.h264,
    }
    return LoadPlan(
        address=options.target,
        tls=tls,
        avatar_id=avatar_id,
        ramp=_ramp(options, options.sessions),
        speech=speech,
        video_format=formats[options.codec](),
        idle=options.idle,
        pause_seconds=options.pause,
        interrupts_per_minute=options.interrupts_per_minute,
        buffer_seconds=options.playout_buffer,
        processes=options.processes or max(1, (os.cpu_count() or 1) // 2),
        seed=options.seed,
    )


def _request(options: argparse.Namespace, plan: LoadPlan, files: Sequence[str]) -> LoadRequest:
    return LoadRequest(
        target=options.target,
        ramp=tuple(plan.ramp),
        speech_files=tuple(files),
        codec=options.codec,
        idle=options.idle,
        pause_seconds=plan.pause_seconds,
        interrupts_per_minute=plan.interrupts_per_minute,
        playout_buffer_seconds=plan.buffer_seconds,
        processes=plan.processes,
        seed=plan.seed,
    )
