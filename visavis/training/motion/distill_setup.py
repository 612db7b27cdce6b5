"""Sets up the distillation of the fast preset: the student that it belongs to, twice, once with an adapter."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Final

from visavis.models.adapter import weights_sha256
from visavis.training.errors import TrainingError
from visavis.training.motion.data import motion_data
from visavis.training.motion.distill_network import FastNetwork
from visavis.training.motion.distill_options import DistillOptions
from visavis.training.motion.distill_task import DistillTask
from visavis.training.motion.network import StudentNetwork
from visavis.training.motion.options import read_options
from visavis.training.motion.weights import read_network
from visavis.training.plan import Plan

_RECORD_FILE: Final = "student.json"


def distill_task(
    plan: Plan,
    dataset: Path,
    run: Path,
    cache: Path | None,
    weights: Path | None,
    vae: Path | None = None,
    speech_ae: Path | None = None,
) -> DistillTask:
    """The task of `plan`. `weights` is the folder of the student's transformer as it ships.

    The adapter is for that alone. As `student_task` otherwise. Raises TrainingError without it, or for another one than
    the run began with.
    """
    if weights is None:
        raise TrainingError("what is distilled is a trained student: give its transformer's folder as --weights")
    options = read_options(DistillOptions, plan.task_options, f"task_options of {plan.task}")
    student = read_network(StudentNetwork, plan, weights, speech_ae)
    _keep_to(run, weights_sha256(weights))
    network = FastNetwork(deepcopy(student.transformer), student.speech_ae, options.rank)
    return DistillTask(network, student.transformer, plan, motion_data(plan, dataset, run, cache, vae), options)


def student_of(run: Path) -> str:
    """SHA-256 (hex) of the student that a run distils (`weights_sha256`). Raises TrainingError where it is none."""
    try:
        return str(json.loads((run / _RECORD_FILE).read_text())["sha256"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{run} holds no {_RECORD_FILE} of a distillation: {error}") from error


def _keep_to(run: Path, sha256: str) -> None:
    if (run / _RECORD_FILE).is_file():
        if student_of(run) != sha256:
            raise TrainingError(f"{run} distils another student: give that one as --weights, or choose another folder")
        return
    run.mkdir(parents=True, exist_ok=True)
    partial = run / f"{_RECORD_FILE}.partial"
    partial.write_text(json.dumps({"sha256": sha256}))
    partial.replace(run / _RECORD_FILE)
