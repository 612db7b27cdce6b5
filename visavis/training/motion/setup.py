"""Sets up the training of a teacher or a student: the network with its weights, and what it learns from."""

from __future__ import annotations

from pathlib import Path

from visavis.training.motion.data import MotionData, motion_data
from visavis.training.motion.network import MotionNetwork, StudentNetwork, TeacherNetwork
from visavis.training.motion.prior import fit_prior
from visavis.training.motion.task import StudentTask, TeacherTask
from visavis.training.motion.weights import make_network
from visavis.training.plan import Plan


def teacher_task(
    plan: Plan,
    dataset: Path,
    run: Path,
    cache: Path | None,
    weights: Path | None,
    vae: Path | None = None,
    speech_ae: Path | None = None,
) -> TeacherTask:
    """The task of `plan`. `weights` is a transformer's folder to start from; None: it starts from nothing.

    `vae` and `speech_ae` are folders, by default the preset's shipped ones; a SpeechAE beside `weights` comes first.
    Latents and speech states that are not in `cache` (DATASET.cache) yet are computed first. Raises TrainingError for
    missing data or weights, and for a run that began with others; ShardError for a broken shard.
    """
    TeacherTask.check(plan)  # before anything that takes long
    network = make_network(TeacherNetwork, plan, weights, speech_ae)
    return TeacherTask(network, plan, _data(network, plan, dataset, run, cache, weights, vae))


def student_task(
    plan: Plan,
    dataset: Path,
    run: Path,
    cache: Path | None,
    weights: Path | None,
    vae: Path | None = None,
    speech_ae: Path | None = None,
) -> StudentTask:
    """As `teacher_task`; `weights` is a teacher's folder."""
    StudentTask.check(plan)
    network = make_network(StudentNetwork, plan, weights, speech_ae)
    return StudentTask(network, plan, _data(network, plan, dataset, run, cache, weights, vae))


def _data(
    network: MotionNetwork,
    plan: Plan,
    dataset: Path,
    run: Path,
    cache: Path | None,
    weights: Path | None,
    vae: Path | None,
) -> MotionData:
    """What the network learns from; one that starts from nothing takes the latents' covariance over at once."""
    data = motion_data(plan, dataset, run, cache, vae)
    if weights is None:
        fit_prior(network.transformer, data.train)
    return data
