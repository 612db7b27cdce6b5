"""What a training is to do, as its TOML file says: the model, the phases, and what the task itself wants to know.

task = "vae"
preset = "mini"
seed = 0
average_decay = 0.999

[every_minutes]          # none of it changes what is learnt
checkpoint = 5.0
evaluation = 10.0

[task_options]           # read by the task alone
kl_weight = 1e-4

[[phases]]
name = "crops"
steps = 4000             # ends here ...
minutes = 45.0           # ... or after this time of training, whichever comes first; optional
learning_rate = 1e-3
warmup_steps = 100
accumulation = 1
gradient_checkpointing = false
options = { batch = 8, crop = 128 }   # read by the task alone
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from visavis.training.errors import TrainingError

_SAVED: Final = "plan.json"

Options = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a training with an optimiser of its own; `options` belong to the task."""

    name: str
    steps: int
    # of training time, stops of the machine counted; None: steps alone decide
    minutes: float | None
    learning_rate: float
    warmup_steps: int
    # batches whose gradients make one step
    accumulation: int
    gradient_checkpointing: bool
    options: Options

    def progress(self, steps: int, minutes: float) -> float:
        """How much of the phase is over: 0 at its start, 1 at its end."""
        by_clock = 0.0 if self.minutes is None else minutes / self.minutes
        return min(1.0, max(steps / self.steps, by_clock))


@dataclass(frozen=True, slots=True)
class Cadence:
    """Minutes between two checkpoints and between two evaluations with sample pictures."""

    checkpoint: float
    evaluation: float


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole training."""

    task: str
    # name of the preset whose part is trained
    preset: str
    seed: int
    # of the moving average of the weights, which is what ships
    average_decay: float
    every_minutes: Cadence
    task_options: Options
    phases: tuple[Phase, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over everything that changes what is learnt."""
        meant = {name: value for name, value in asdict(self).items() if name != "every_minutes"}
        return hashlib.sha256(json.dumps(meant, sort_keys=True).encode()).hexdigest()


def read_plan(path: Path) -> Plan:
    """Reads a plan. Raises TrainingError, naming the file, when it is not there or not a plan."""
    try:
        return _plan(tomllib.loads(path.read_text()))
    except OSError as error:
        raise TrainingError(f"the plan {path} cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{path} is not a training plan: {error}") from error


def save_plan(plan: Plan, run: Path) -> None:
    """Keeps a run's plan as RUN/plan.json, so that the run can be exported without the file that it came from."""
    run.mkdir(parents=True, exist_ok=True)
    partial = run / f"{_SAVED}.partial"
    partial.write_text(json.dumps(asdict(plan), indent=1))
    partial.replace(run / _SAVED)


def read_saved_plan(run: Path) -> Plan:
    """What `save_plan` kept. Raises TrainingError when `run` is no training's folder."""
    try:
        return _plan(json.loads((run / _SAVED).read_text()))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{run} is not the folder of a training: {error}") from error


def _plan(table: dict[str, Any]) -> Plan:
    phases = tuple(Phase(**{"minutes": None, "options": {}, **phase}) for phase in table.pop("phases"))
    plan = Plan(**{**table, "every_minutes": Cadence(**table["every_minutes"]), "phases": phases})
    for phase in phases:
        _check(phase)
    if not phases or not 0 <= plan.average_decay < 1 or min(asdict(plan.every_minutes).values()) <= 0:
        raise ValueError("it needs a phase, an average_decay from 0 to below 1 and every_minutes above 0")
    return plan


def _check(phase: Phase) -> None:
    clock = 1.0 if phase.minutes is None else phase.minutes
    if min(phase.steps, phase.accumulation, clock, phase.learning_rate) <= 0 or phase.warmup_steps < 0:
        raise ValueError(f"phase {phase.name}: steps, minutes, accumulation and learning_rate must be above 0")
