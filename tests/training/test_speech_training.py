"""The SpeechAE learns from a data set, resumes, starts from weights, and ships."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.made_up_talker import make_talkers
from visavis.cli.main import main
from visavis.models.presets import load_preset
from visavis.models.speech_ae import SpeechAE
from visavis.training.errors import TrainingError
from visavis.training.journal import read_journal
from visavis.training.loop import Training
from visavis.training.plan import Plan, read_plan
from visavis.training.speech.principal_start import principal_components, start_from_principal_components
from visavis.training.speech.task import SpeechAETask, feature_statistics
from visavis.training.speech.training import speech_ae_task
from visavis.training.task import Limits

PLAN = """\
task = "speech-ae"
preset = "tiny"
seed = 0
average_decay = 0.9

[every_minutes]
checkpoint = 1000.0
evaluation = 1000.0

[task_options]

[[phases]]
name = "reconstruction"
steps = 8
learning_rate = 1e-3
warmup_steps = 2
accumulation = 1
gradient_checkpointing = false
options = { batch = 4, chunks = 2, places = 3 }
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_talkers(tmp_path_factory.mktemp("data") / "faces")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    path = tmp_path_factory.mktemp("plan") / "plan.toml"
    path.write_text(PLAN)
    return read_plan(path)


def _losses(plan: Plan, dataset: Path, run: Path, *limits: int) -> list[float]:
    losses: list[float] = []
    for steps in limits:
        task = speech_ae_task(plan, dataset, run, None, None)
        Training(task, plan, run, "cpu", lambda progress: losses.append(progress.loss)).run(Limits(steps, None))
    return losses


def test_a_stopped_training_gives_the_same_curve(dataset: Path, plan: Plan, tmp_path: Path) -> None:
    whole = _losses(plan, dataset, tmp_path / "whole", 8)

    assert len(whole) == 8
    assert _losses(plan, dataset, tmp_path / "parts", 3, 5) == whole


def test_trained_and_exported_by_command(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    run, out = tmp_path / "run", tmp_path / "speech_ae"
    folders = ["--data", str(dataset), "--out", str(run)]
    assert main(["train", "speech-ae", "--config", str(tmp_path / "plan.toml"), *folders, "--device", "cpu"]) == 0

    assert main(["train", "export", str(run), str(out), "--data", str(dataset)]) == 0

    before, after = read_journal(run, "evaluation")
    assert 0 < float(before["explained_variance"]) < float(after["explained_variance"]) < 1
    shipped: SpeechAE = SpeechAE.from_pretrained(out)
    assert not bool((shipped.feature_std == 1).any())
    assert "tiny.en" in (out / "README.md").read_text()


def test_a_run_keeps_to_the_speech_that_it_began_with(dataset: Path, plan: Plan, tmp_path: Path) -> None:
    data = make_talkers(tmp_path / "faces")
    speech_ae_task(plan, data, tmp_path / "run", None, None)
    (data / "train" / "train-00001.tar").unlink()

    task = speech_ae_task(plan, data, tmp_path / "run", None, None)

    assert len(task._training) == 10


def test_the_start_is_better_than_random_weights_and_leaves_its_place_to_given_ones(
    dataset: Path, plan: Plan, tmp_path: Path
) -> None:
    task = speech_ae_task(plan, dataset, tmp_path / "run", None, None)
    phase = plan.phases[0]
    random = _explained(task)
    task.enter_phase(phase)
    assert _explained(task) > random + 0.3

    weights = {name: value.clone() for name, value in task.model.state_dict().items()}
    task.model.save_pretrained(tmp_path / "weights")
    other = speech_ae_task(plan, dataset, tmp_path / "run", None, tmp_path / "weights")
    other.enter_phase(phase)
    assert all(torch.equal(value, weights[name]) for name, value in other.model.state_dict().items())


def _explained(task: SpeechAETask) -> float:
    with torch.no_grad():
        return task.evaluate(task.model, None, torch.device("cpu"), Path())["explained_variance"]  # type: ignore[arg-type]


def test_features_on_a_line_need_no_training() -> None:
    """Of features that a few directions span, the linear start loses next to nothing."""
    generator = torch.Generator().manual_seed(0)
    speech_ae = SpeechAE(**load_preset("tiny").speech_ae).eval()
    spanned = torch.randn(200, 56, 2, generator=generator) @ torch.randn(2, 96, generator=generator)
    states_NPLD = spanned.unflatten(2, (3, 32))
    speech_ae.set_feature_statistics(*feature_statistics(states_NPLD))

    start_from_principal_components(speech_ae, spanned)

    with torch.no_grad():
        rebuilt, wanted = speech_ae(spanned[:8].unflatten(0, (4, 2)), [4, 5])
    assert float((rebuilt - wanted).square().mean() / wanted.square().mean()) < 0.1


def test_principal_components_are_the_directions_of_most_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(5000, 3, generator=generator) * torch.tensor([1.0, 5.0, 3.0])

    found = principal_components(samples, 2)

    torch.testing.assert_close(
        found.directions_CK.abs(), torch.tensor([[0, 0], [1, 0], [0, 1]]).float(), rtol=0, atol=0.05
    )
    torch.testing.assert_close(found.variances_K, torch.tensor([25.0, 9.0]), rtol=0.1, atol=0)
    with pytest.raises(ValueError, match="components"):
        principal_components(samples, 4)


def test_plans_that_mean_nothing_are_refused(dataset: Path, plan: Plan, tmp_path: Path) -> None:
    task = speech_ae_task(plan, dataset, tmp_path / "run", None, None)
    for options in ("{ batch = 4 }", "{ batch = 4, chunks = 2, places = 11 }", "{ batch = 0, chunks = 1, places = 1 }"):
        path = tmp_path / "other.toml"
        path.write_text(PLAN.replace("{ batch = 4, chunks = 2, places = 3 }", options))
        with pytest.raises(TrainingError, match="reconstruction"):
            task.begin_phase(read_plan(path).phases[0])
    with pytest.raises(TrainingError, match="no train shards"):
        speech_ae_task(plan, tmp_path, tmp_path / "other", None, None)
    with pytest.raises(TrainingError, match="no weights"):
        speech_ae_task(plan, dataset, tmp_path / "run", None, tmp_path)
