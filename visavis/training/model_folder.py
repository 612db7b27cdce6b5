"""What ships of a training: a folder with configuration, bfloat16 safetensors and a model card."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from visavis.models.checkpoints import placed
from visavis.training.checkpoint_folder import CheckpointFolder
from visavis.training.errors import TrainingError
from visavis.training.journal import read_journal
from visavis.training.plan import Plan, read_saved_plan

_CARD = """\
---
license: apache-2.0
library_name: diffusers
---
# {title}

{purpose}

## Data
{data}

## Training
{steps:,} steps, {minutes:.0f} minutes, on {hardware}, with `visavis train {task}` and this plan (seed {seed}):

| phase | to step | minutes | learning rate | options |
|---|---|---|---|---|
{phases}

These are the averaged weights (decay {decay}) of the last checkpoint, {parameters:.1f} million parameters in bfloat16.

## Measures
On held-out people or voices, at step {measured:,}, before rounding to bfloat16:

| measure | value |
|---|---|
{measures}

## Limits
{limits}

## Licence
Apache-2.0, like the code. The data are synthetic: no real person's face is in them.
"""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a part's card says besides what the run knows itself."""

    title: str
    purpose: str
    data: str
    limits: str


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """The last checkpoint of a training."""

    plan: Plan
    step: int
    # of the phase that it was in, and since that phase began
    phase: str
    phase_minutes: float
    averaged_weights: dict[str, Tensor]
    # in words, everything that it ran on
    hardware: list[str]
    evaluations: list[dict[str, Any]]


def read_run(folder: Path) -> FinishedRun:
    """Reads a run folder, finished or not. Raises TrainingError when it holds no training or no checkpoint."""
    plan = read_saved_plan(folder)
    state = CheckpointFolder(folder / "checkpoints", plan.fingerprint).load_latest()
    if state is None:
        raise TrainingError(f"{folder} holds no checkpoint yet")
    hardware = sorted({str(line["hardware"]) for line in read_journal(folder, "start")})
    prefix = "module."
    weights = {name.removeprefix(prefix): value for name, value in state["averaged"].items() if prefix in name}
    place = state["place"]
    phase = plan.phases[place["phase"]].name
    return FinishedRun(
        plan, place["step"], phase, place["phase_minutes"], weights, hardware, read_journal(folder, "evaluation")
    )


def write_part(model: ModelMixin, out: Path, run: FinishedRun, card: ModelCard) -> None:
    """Writes the folder beside its place and moves it there. The model's weights become bfloat16."""
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    aside = out.with_name(out.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    placed(model, torch.device("cpu"), torch.bfloat16).save_pretrained(aside, safe_serialization=True)
    (aside / "README.md").write_text(card_text(run, card, parameters))
    if out.exists():
        shutil.rmtree(out)
    aside.rename(out)


def card_text(run: FinishedRun, card: ModelCard, parameters: float) -> str:
    """The model card of a run, of `parameters` million parameters."""
    reached = {str(line["phase"]): (int(line["step"]), float(line["minutes"])) for line in run.evaluations}
    reached[run.phase] = (run.step, run.phase_minutes)
    phases = [
        f"| {phase.name} | {reached[phase.name][0]:,} | {reached[phase.name][1]:.0f} | {phase.learning_rate:g} "
        f"| {', '.join(f'{name} {value}' for name, value in phase.options.items())} |"
        for phase in run.plan.phases
        if phase.name in reached
    ]
    measures: Mapping[str, Any] = run.evaluations[-1] if run.evaluations else {}
    rows = [f"| {name} | {value:.2f} |" for name, value in measures.items() if _is_measure(name, value)]
    return _CARD.format(
        title=card.title,
        purpose=card.purpose,
        data=card.data,
        limits=card.limits,
        steps=run.step,
        measured=int(measures.get("step", 0)),
        minutes=sum(minutes for _, minutes in reached.values()),
        hardware=" and ".join(run.hardware),
        task=run.plan.task,
        seed=run.plan.seed,
        phases="\n".join(phases),
        decay=run.plan.average_decay,
        parameters=parameters,
        measures="\n".join(rows),
    )


def _is_measure(name: str, value: Any) -> bool:
    return isinstance(value, float) and name not in ("time", "minutes")
