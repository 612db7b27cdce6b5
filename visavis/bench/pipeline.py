"""`visavis bench pipeline`: the whole way of speech and pictures, through freshly started services."""

import argparse
import json
import os
import subprocess
import sys
from typing import Final

from rich.console import Console

from visavis.bench.measured_session import SessionMeasurement
from visavis.bench.measurement_json import in_process_from_json, measurement_from_json
from visavis.bench.pipeline_report import print_result, write_json, write_markdown
from visavis.bench.pipeline_result import InProcessFigures, Pace, PaceFigures, PipelineResult, pace_figures
from visavis.bench.resources import MachineClock, ResourceWatch
from visavis.bench.surroundings import surroundings
from visavis.cli.errors import CommandError
from visavis.cli.local_system import LocalSystem, default_settings, local_system
from visavis.client import BlockingClient
from visavis.contract import CHUNK_SECONDS

WARM_UP_SECONDS: Final = 3.0
GRACE_SECONDS: Final = 120.0
# A run that is this many times slower than real time is given up.
SLOWEST_FACTOR: Final = 20.0


def run(options: argparse.Namespace) -> int:
    """Measures, prints and writes."""
    if options.sessions < 1 or options.seconds < 2 * CHUNK_SECONDS:
        raise CommandError(f"a benchmark needs at least 1 session and {2 * CHUNK_SECONDS} s of speech")
    console = Console()
    result = measure(options.preset, options.sessions, options.seconds, in_process=options.in_process, console=console)
    print_result(result, console)
    if options.json:
        write_json(result, options.json)
        console.print(f"wrote {options.json}")
    if not options.no_result:
        console.print(f"wrote {write_markdown(result, options.results)}")
    return 0


def measure(preset: str, sessions: int, speech_seconds: float, *, in_process: bool, console: Console) -> PipelineResult:
    """Starts the services, runs the clients fast and paced, and stops the services."""
    status = console.status("starting")
    with status:
        with local_system(default_settings(preset), status.update) as system:
            with BlockingClient(system.gateway_address) as client:
                model = client.server_info().model
            status.update("warming up")
            _run_clients(system, sessions, WARM_UP_SECONDS, "fast")
            status.update(f"{sessions} session(s) as fast as possible")
            fast = _measure_pace(system, sessions, speech_seconds, "fast")
            status.update(f"{sessions} session(s) paced, {speech_seconds:.0f} s")
            paced = _measure_pace(system, sessions, speech_seconds, "paced")
        alone: InProcessFigures | None = None
        if in_process:
            status.update("the same models in one process")
            alone = _measure_in_process(preset, speech_seconds)
    return PipelineResult(
        surroundings=surroundings(),
        preset=preset,
        model=model,
        sessions=sessions,
        speech_seconds=speech_seconds,
        threads=os.environ.get("VISAVIS_WORKER_THREADS", "as the services choose"),
        fast=fast,
        paced=paced,
        in_process=alone,
    )


def _measure_pace(system: LocalSystem, sessions: int, speech_seconds: float, pace: Pace) -> PaceFigures:
    processes = {process.name: process.pid for process in system.supervisor.processes}
    clock = MachineClock()
    with ResourceWatch(processes) as watch:
        measurements = _run_clients(system, sessions, speech_seconds, pace)
    return pace_figures(pace, measurements, watch.use, clock.use(watch.use))


def _run_clients(system: LocalSystem, sessions: int, speech_seconds: float, pace: Pace) -> list[SessionMeasurement]:
    command = ["visavis.bench.live_clients", "--address", system.gateway_address]
    command += ["--sessions", str(sessions), "--seconds", str(speech_seconds)]
    if pace == "fast":
        command.append("--fast")
    output = _run_module(command, GRACE_SECONDS + SLOWEST_FACTOR * speech_seconds * sessions, system)
    return [measurement_from_json(found) for found in json.loads(output)]


def _measure_in_process(preset: str, speech_seconds: float) -> InProcessFigures:
    command = ["visavis.bench.in_process", "--preset", preset, "--seconds", str(speech_seconds)]
    return in_process_from_json(json.loads(_run_module(command, GRACE_SECONDS + SLOWEST_FACTOR * speech_seconds)))


def _run_module(command: list[str], timeout_seconds: float, system: LocalSystem | None = None) -> str:
    """Runs a module as a process and returns what it printed; its last line of errors becomes a CommandError."""
    try:
        finished = subprocess.run(
            [sys.executable, "-m", *command], capture_output=True, text=True, timeout=timeout_seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{command[0]} took longer than {timeout_seconds:.0f} s") from error
    if system is not None:
        system.supervisor.check()
    if finished.returncode:
        lines = finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"]
        raise CommandError(f"{command[0]} failed: {lines[-1]}")
    return finished.stdout
