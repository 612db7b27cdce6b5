"""The runs of `visavis bench pipeline`, against a system that is running."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from visavis.bench.bundled import speech_of
from visavis.bench.capacity_search import CapacityResult, SearchStep, find_capacity
from visavis.bench.load_figures import LoadFigures, SloLimits, broken_promises, load_figures
from visavis.bench.load_plan import LoadPlan
from visavis.bench.load_run import run_load
from visavis.bench.measured_session import SessionMeasurement
from visavis.bench.measurement_json import in_process_from_json, measurement_from_json
from visavis.bench.pipeline_result import (
    FastFigures,
    InProcessFigures,
    ModelRun,
    PacedFigures,
    fast_figures,
    paced_figures,
)
from visavis.bench.ramp import RampPoint
from visavis.bench.resources import MachineClock, MachineUse, ResourceUse, ResourceWatch
from visavis.cli.errors import CommandError
from visavis.cli.local_system import LocalSystem
from visavis.client import VideoFormat
from visavis.contract import CHUNK_SECONDS
from visavis.runtime.worker_process import KEPT_BYTES

WARM_UP_SECONDS: Final = 3.0
GRACE_SECONDS: Final = 120.0
# A run that is this many times slower than real time is given up.
SLOWEST_FACTOR: Final = 20.0
LIMITS: Final = SloLimits(in_time_share=0.99, chunk_p95_seconds=None, first_frame_p95_seconds=None)

_Found = TypeVar("_Found")


def warm_up(system: LocalSystem, sessions: int) -> None:
    """Runs every path once; nothing is kept."""
    _run_fast_clients(system, sessions, WARM_UP_SECONDS)


def measure_fast(system: LocalSystem, sessions: int, speech_seconds: float) -> FastFigures:
    """All speech at once. Raises CommandError when a session fails."""
    measurements, resources, machine = _watched(system, lambda: _run_fast_clients(system, sessions, speech_seconds))
    return fast_figures(measurements, resources, machine)


def measure_paced(
    system: LocalSystem, avatar_id: str, sessions: int, speech_seconds: float, buffer_seconds: float
) -> PacedFigures:
    """Speech in real time, shown by players that hold `buffer_seconds`. What fails is in the figures."""
    load, resources, machine = _watched(
        system, lambda: _run_paced_clients(system, avatar_id, sessions, speech_seconds, buffer_seconds)
    )
    return paced_figures(load, resources, machine)


def search_sessions(
    system: LocalSystem,
    avatar_id: str,
    most: int,
    speech_seconds: float,
    buffer_seconds: float,
    say: Callable[[str], None],
) -> CapacityResult:
    """How many sessions keep the promise of 99 % of chunks in time."""

    def step(sessions: int) -> SearchStep:
        say(f"search: {sessions} session(s) paced, {speech_seconds:.0f} s")
        figures = _run_paced_clients(system, avatar_id, sessions, speech_seconds, buffer_seconds)
        return SearchStep(sessions, figures, tuple(broken_promises(figures, LIMITS)))

    return find_capacity(most, step)


def measure_in_process(preset: str, speech_seconds: float, run: ModelRun) -> InProcessFigures:
    """The same models in one process of their own, run as the services run them, but for `execution`: always eager."""
    command = ["visavis.bench.in_process", "--preset", preset, "--seconds", str(speech_seconds)]
    command += ["--device", run.device, "--dtype", run.dtype, "--sampling", run.sampling]
    # As in the services' workers, freed memory stays with the process.
    kept = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(KEPT_BYTES))
    output = _run_module(command, GRACE_SECONDS + SLOWEST_FACTOR * speech_seconds, environment={**os.environ, **kept})
    return in_process_from_json(json.loads(output))


def _watched(system: LocalSystem, work: Callable[[], _Found]) -> tuple[_Found, Mapping[str, ResourceUse], MachineUse]:
    processes = {process.name: process.pid for process in system.supervisor.processes}
    clock = MachineClock()
    with ResourceWatch(processes) as watch:
        found = work()
    return found, watch.use, clock.use(watch.use)


def _run_fast_clients(system: LocalSystem, sessions: int, speech_seconds: float) -> list[SessionMeasurement]:
    command = ["visavis.bench.fast_clients", "--address", system.gateway_address]
    command += ["--sessions", str(sessions), "--seconds", str(speech_seconds)]
    output = _run_module(command, GRACE_SECONDS + SLOWEST_FACTOR * speech_seconds * sessions, system)
    return [measurement_from_json(found) for found in json.loads(output)]


def _run_paced_clients(
    system: LocalSystem, avatar_id: str, sessions: int, speech_seconds: float, buffer_seconds: float
) -> LoadFigures:
    """One utterance a session; they begin evenly spread over the length of one chunk."""
    plan = LoadPlan(
        address=system.gateway_address,
        tls=None,
        avatar_id=avatar_id,
        ramp=(RampPoint(0, 0), RampPoint(CHUNK_SECONDS, sessions), RampPoint(CHUNK_SECONDS + speech_seconds, sessions)),
        speech=[speech_of(speech_seconds)],
        video_format=VideoFormat.jpeg(),
        idle="pause",
        pause_seconds=CHUNK_SECONDS,
        interrupts_per_minute=0,
        buffer_seconds=buffer_seconds,
        processes=1,
        seed=0,
    )
    tally = run_load(plan, lambda _tally, _moment: system.supervisor.check())
    if tally.stopped:
        raise KeyboardInterrupt
    system.supervisor.check()
    return load_figures(tally)


def _run_module(
    command: list[str],
    timeout_seconds: float,
    system: LocalSystem | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Runs a module as a process and returns what it printed; its last line of errors becomes a CommandError."""
    try:
        finished = subprocess.run(
            [sys.executable, "-m", *command],
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{command[0]} took longer than {timeout_seconds:.0f} s") from error
    if system is not None:
        system.supervisor.check()
    if finished.returncode:
        lines = finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"]
        raise CommandError(f"{command[0]} failed: {lines[-1]}")
    return finished.stdout
