"""`visavis bench pipeline`: the whole way of speech and pictures, through freshly started services."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from rich.console import Console

from visavis.bench.bundled import CONSENT, bundled_portrait
from visavis.bench.capacity_search import CapacityResult
from visavis.bench.json_file import write_json
from visavis.bench.pipeline_report import print_result, write_results
from visavis.bench.pipeline_result import InProcessFigures, ModelRun, PipelineResult, overhead_of
from visavis.bench.pipeline_runs import measure_fast, measure_in_process, measure_paced, search_sessions, warm_up
from visavis.bench.surroundings import surroundings
from visavis.cli.errors import CommandError
from visavis.cli.local_system import SystemSettings, default_settings, local_system
from visavis.client import BlockingClient
from visavis.contract import CHUNK_SECONDS

# What services take when nobody says anything.
_DEFAULT_SLOTS: Final = 4
# A player that holds more than this is not live.
_LONGEST_BUFFER_SECONDS: Final = 5.0
# What changes how fast services are; a page is worth nothing without.
_TOLD_SETTINGS: Final = (
    "VISAVIS_DEVICE",
    "VISAVIS_DTYPE",
    "VISAVIS_EXECUTION",
    "VISAVIS_MAX_BATCH",
    "VISAVIS_SAMPLING",
    "VISAVIS_WORKER_THREADS",
)


def run(options: argparse.Namespace) -> int:
    """Measures, prints and writes."""
    if options.sessions < 1 or options.seconds < 2 * CHUNK_SECONDS:
        raise CommandError(f"a benchmark needs at least 1 session and {2 * CHUNK_SECONDS} s of speech")
    if options.find_sessions is not None and options.find_sessions < 1:
        raise CommandError("--find-sessions is at least 1")
    if not 0 <= options.playout_buffer <= _LONGEST_BUFFER_SECONDS:
        raise CommandError(f"--playout-buffer is between 0 and {_LONGEST_BUFFER_SECONDS:g} s")
    console = Console()
    result = measure(options, console)
    print_result(result, console)
    if options.json:
        write_json(result, options.json)
        console.print(f"wrote {options.json}")
    if not options.no_result:
        for path in write_results(result, options.results):
            console.print(f"wrote {path}")
    return 0


def measure(options: argparse.Namespace, console: Console) -> PipelineResult:
    """Starts the services, runs the clients fast and paced, and stops the services."""
    sessions, seconds, buffer = options.sessions, options.seconds, options.playout_buffer
    search: CapacityResult | None = None
    alone: InProcessFigures | None = None
    run = services_run(os.environ)
    status = console.status("starting")
    with status:
        with local_system(_settings(options), status.update) as system:
            with BlockingClient(system.gateway_address) as client:
                model = client.server_info().model
                avatar_id = client.register_avatar(bundled_portrait(), CONSENT, display_name="bench").avatar_id
            status.update("warming up")
            warm_up(system, sessions)
            status.update(f"{sessions} session(s) as fast as possible")
            fast = measure_fast(system, sessions, seconds)
            status.update(f"{sessions} session(s) paced, {seconds:.0f} s")
            paced = measure_paced(system, avatar_id, sessions, seconds, buffer)
            if options.find_sessions is not None:
                search = search_sessions(system, avatar_id, options.find_sessions, seconds, buffer, status.update)
        if options.in_process:
            status.update("the same models in one process")
            alone = measure_in_process(options.preset, seconds, run)
    return PipelineResult(
        surroundings=surroundings(),
        preset=Path(options.preset).name,
        model=model,
        sessions=sessions,
        speech_seconds=seconds,
        playout_buffer_seconds=buffer,
        settings=tuple(f"{name}={os.environ[name]}" for name in _TOLD_SETTINGS if name in os.environ),
        run=run,
        fast=fast,
        paced=paced,
        search=search,
        in_process=alone,
        overhead=None if alone is None else overhead_of(fast, paced, run, alone),
    )


def services_run(environment: Mapping[str, str]) -> ModelRun:
    """How services that are started in this environment run their models."""
    return ModelRun(
        device=environment.get("VISAVIS_DEVICE", "auto"),
        dtype=environment.get("VISAVIS_DTYPE", "auto"),
        sampling=environment.get("VISAVIS_SAMPLING", "standard"),
        execution=environment.get("VISAVIS_EXECUTION", "eager"),
    )


def _settings(options: argparse.Namespace) -> SystemSettings:
    """With slots for all sessions that are going to be tried, unless the environment says how many."""
    slots = max(_DEFAULT_SLOTS, options.sessions, options.find_sessions or 0)
    environment = {} if "VISAVIS_SLOTS" in os.environ else {"VISAVIS_SLOTS": str(slots)}
    return replace(default_settings(options.preset), environment=environment)
