"""Sets up Asynchronous Streaming Distillation: a student to go on with, and its teacher."""

from __future__ import annotations

from pathlib import Path

from visavis.training.errors import TrainingError
from visavis.training.motion.asd_options import split_plan
from visavis.training.motion.asd_task import AsdTask
from visavis.training.motion.data import motion_data
from visavis.training.motion.network import StudentNetwork, TeacherNetwork
from visavis.training.motion.weights import read_network
from visavis.training.plan import Plan


def asd_task(
    plan: Plan,
    dataset: Path,
    run: Path,
    cache: Path | None,
    weights: Path | None,
    vae: Path | None = None,
    speech_ae: Path | None = None,
    teacher: Path | None = None,
) -> AsdTask:
    """The task of `plan`. `weights` is the folder of a trained student's transformer, `teacher` that of its teacher.

    As `student_task` otherwise. Raises TrainingError where one of them is missing that is needed.
    """
    asd, student_plan = split_plan(plan)
    if weights is None:
        raise TrainingError("ASD goes on with a trained student: give its transformer's folder as --weights")
    if asd.needs_teacher and teacher is None:
        raise TrainingError("ASD needs the trained teacher: give its folder as --teacher")
    network = read_network(StudentNetwork, plan, weights, speech_ae)
    taught = read_network(TeacherNetwork, plan, teacher) if asd.needs_teacher and teacher is not None else None
    return AsdTask(network, taught, student_plan, motion_data(plan, dataset, run, cache, vae), asd)
