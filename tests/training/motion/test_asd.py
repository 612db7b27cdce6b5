"""Asynchronous Streaming Distillation: what both networks are shown, what is learnt, and what ablations leave of it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch

from tests.training.motion.talkers import World, make_plan, write_plan
from visavis.cli import train
from visavis.cli.main import main
from visavis.models.checkpoints import load_part
from visavis.models.presets import load_preset
from visavis.training.errors import TrainingError
from visavis.training.journal import read_journal
from visavis.training.loop import Training
from visavis.training.motion.asd_options import ABLATIONS, split_plan, without
from visavis.training.motion.asd_setup import asd_task
from visavis.training.motion.asd_task import AsdTask
from visavis.training.motion.weights import new_transformer
from visavis.training.plan import Plan, read_saved_plan
from visavis.training.task import Limits

CPU = torch.device("cpu")
TERMS = "contrastive = 0.2\nsmoothness = 0.2\ntemperature = 0.1\nmouth"


@pytest.fixture(scope="module")
def weights(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders teacher, transformer and their SpeechAEs: a teacher that says something, a student that knows nothing."""
    folder = tmp_path_factory.mktemp("weights")
    load_part("tiny", "transformer", "cpu", "float32").module.save_pretrained(folder / "teacher")  # type: ignore[operator]
    new_transformer(load_preset("tiny"), seed=3).save_pretrained(folder / "transformer")
    for name in ("teacher_speech_ae", "speech_ae"):
        shutil.copytree(world.speech_ae, folder / name)
    return folder


def asd_plan(folder: Path, steps: int = 4, terms: Mapping[str, object] = MappingProxyType({})) -> Plan:
    plan = make_plan(folder, "asd", steps)
    chosen = {"contrastive": 0.2, "smoothness": 0.2, "temperature": 0.1, **terms}
    return replace(plan, task_options={**plan.task_options, **chosen})


def make_task(plan: Plan, world: World, weights: Path, run: Path) -> AsdTask:
    return asd_task(plan, world.dataset, run, None, weights / "transformer", world.vae, teacher=weights / "teacher")


def measures_of(task: AsdTask, plan: Plan) -> dict[str, float]:
    """Of one batch, always the same, with noise that is always the same."""
    task.begin_phase(plan.phases[0])
    batch = task.batch(plan.phases[0], np.random.default_rng(5))
    torch.manual_seed(6)
    return {name: float(value.detach()) for name, value in task.loss(task.model, batch, CPU).items()}


def test_both_networks_are_shown_the_same_noise_levels_and_dropouts(
    world: World, weights: Path, tmp_path: Path
) -> None:
    plan = asd_plan(tmp_path)
    task = make_task(plan, world, weights, tmp_path / "run")
    assert task._teacher is not None
    shown: dict[str, tuple[object, ...]] = {}
    for name, network in (("teacher", task._teacher), ("student", task.model)):
        network.register_forward_pre_hook(lambda _, arguments, name=name: shown.update({name: arguments[:3]}))
    dropped = set()
    for seed in range(12):
        task.loss(task.model, task.batch(plan.phases[0], np.random.default_rng(seed)), CPU)
        (noisy, levels, conditions), (student_noisy, student_levels, student_conditions) = shown.values()
        assert torch.equal(noisy, student_noisy)  # type: ignore[arg-type]
        assert torch.equal(levels, student_levels)  # type: ignore[arg-type]
        assert conditions is student_conditions
        dropped |= {*zip(conditions.has_identity_B.tolist(), conditions.has_speech_B.tolist(), strict=True)}  # type: ignore[attr-defined]
        # What the teacher has learnt: chunks equally noisy, or ever noisier.
        assert (levels[:, 1:] >= levels[:, :-1]).all()  # type: ignore[index]
    assert {(True, True), (False, False)} <= dropped


def test_the_loss_is_the_students_plus_a_fifth_of_each_term(world: World, weights: Path, tmp_path: Path) -> None:
    plans = {name: without(asd_plan(tmp_path), name) for name in ("contrastive", "smoothness", "asd")}
    plans[""] = asd_plan(tmp_path)
    measured = {
        name: measures_of(make_task(plan, world, weights, tmp_path / f"run-{name}"), plan)
        for name, plan in plans.items()
    }
    alone, whole = measured["asd"]["loss"], measured[""]
    contrastive, smoothness = 0.2 * whole["contrastive"], 0.2 * whole["smoothness"]
    assert min(contrastive, smoothness) > 0
    assert whole["loss"] == pytest.approx(alone + contrastive + smoothness, rel=1e-5)
    assert measured["contrastive"]["loss"] == pytest.approx(alone + smoothness, rel=1e-5)
    assert measured["smoothness"]["loss"] == pytest.approx(alone + contrastive, rel=1e-5)
    assert "teacher_gap" not in measured["asd"]


@pytest.mark.parametrize(("left_out", "cache"), [("sink", "no_sink"), ("context", "no_context"), ("asd", "full")])
def test_an_ablation_trains_and_samples_with_what_is_left_of_the_cache(
    world: World, weights: Path, tmp_path: Path, left_out: str, cache: str
) -> None:
    task = make_task(without(asd_plan(tmp_path), left_out), world, weights, tmp_path / "run")
    assert task.model.cache == cache
    assert task.sampling(task.model).settings.cache == cache


def test_the_student_comes_nearer_to_its_teacher(world: World, weights: Path, tmp_path: Path) -> None:
    plan = asd_plan(tmp_path, steps=60, terms={"contrastive": 1.0, "smoothness": 1.0})
    run = tmp_path / "run"
    losses: list[float] = []
    task = make_task(plan, world, weights, run)
    Training(task, plan, run, "cpu", lambda progress: losses.append(progress.loss)).run(Limits(None, None))
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])
    first, last = read_journal(run, "train")[0], read_journal(run, "train")[-1]
    assert float(last["contrastive"]) < 0.8 * float(first["contrastive"])
    assert float(last["smoothness"]) < 0.7 * float(first["smoothness"])
    before, *_, after = (float(line["teacher_gap"]) for line in read_journal(run, "evaluation"))
    assert after < 0.7 * before


def test_asd_and_its_ablations_are_one_command_each(
    world: World, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_plan(tmp_path / "asd.toml", "asd", steps=2)
    path.write_text(path.read_text().replace("mouth", TERMS))
    command = ["train", "asd", "--config", str(path), "--data", str(world.dataset), "--vae", str(world.vae)]
    command += ["--weights", str(weights / "transformer"), "--device", "cpu"]
    assert main([*command, "--out", str(tmp_path / "whole")]) == 1
    assert "--teacher" in capsys.readouterr().err
    command += ["--teacher", str(weights / "teacher")]
    assert main([*command, "--out", str(tmp_path / "whole"), "--steps", "1"]) == 0
    assert main([*command, "--out", str(tmp_path / "whole")]) == 0
    assert main([*command, "--out", str(tmp_path / "sink"), "--without", "sink"]) == 0
    assert read_saved_plan(tmp_path / "sink").task_options["without"] == "sink"
    # One run folder never holds two experiments.
    assert main([*command, "--out", str(tmp_path / "whole"), "--without", "sink"]) == 1
    shutil.copytree(world.vae, tmp_path / "shipped" / "vae")
    export = ["train", "export", str(tmp_path / "whole"), str(tmp_path / "shipped"), "--data", str(world.dataset)]
    assert main(export) == 0
    assert {path.name for path in (tmp_path / "shipped").iterdir()} == {"vae", "transformer", "speech_ae"}


@pytest.mark.parametrize("terms", [{"without": "lunch"}, {"temperature": 0.0}, {"contrastive": -1.0}, {"tau": 0.1}])
def test_options_that_cannot_be_are_refused(
    world: World, weights: Path, tmp_path: Path, terms: dict[str, object]
) -> None:
    with pytest.raises(TrainingError, match="task_options"):
        make_task(asd_plan(tmp_path, terms=terms), world, weights, tmp_path / "run")


def test_a_plan_is_split_into_asd_and_student(tmp_path: Path) -> None:
    asd, student = split_plan(asd_plan(tmp_path))
    assert (asd.contrastive, asd.smoothness, asd.temperature, asd.without) == (0.2, 0.2, 0.1, "")
    assert student.task_options == make_plan(tmp_path, "asd").task_options


def test_the_command_offers_the_ablations_that_there_are() -> None:
    assert train._ABLATIONS == ABLATIONS
