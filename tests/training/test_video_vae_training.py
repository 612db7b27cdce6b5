"""The video VAE learns from a data set, resumes, starts from weights, and ships."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.made_up_dataset import SIZE, made_up_clip, make_dataset
from visavis.cli.main import main
from visavis.models import shipped_weights
from visavis.models.checkpoints import load_part
from visavis.models.presets import load_preset
from visavis.models.video_vae import CausalVideoVAE
from visavis.training.errors import TrainingError
from visavis.training.journal import read_journal
from visavis.training.linear_start import StartClip, start_linear
from visavis.training.loop import Training
from visavis.training.plan import Plan, read_plan
from visavis.training.task import Limits
from visavis.training.video_vae_export import export_video_vae
from visavis.training.video_vae_training import video_vae_task

PLAN = """\
task = "vae"
preset = "tiny"
seed = 0
average_decay = 0.9

[every_minutes]
checkpoint = 1000.0
evaluation = 1000.0

[task_options]
mouth = 2.0
eyes = 1.0
square = 1.0
gradient = 1.0
change = 0.5
kl = 1e-4
latent_noise = 0.02

[[phases]]
name = "space"
steps = 6
learning_rate = 1e-3
warmup_steps = 2
accumulation = 1
gradient_checkpointing = false
options = { frames = 1, batch = 4, crop = 32, near_mouth = 0.5, varied = 0.8, start = { mouth = 5.0, eyes = 2.0 } }

[[phases]]
name = "time"
steps = 6
learning_rate = 1e-3
warmup_steps = 2
accumulation = 2
gradient_checkpointing = true
options = { frames = 9, batch = 1, crop = 64, near_mouth = 0.0, varied = 0.8, straight_rate = 0.5 }
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "faces")


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return path


@pytest.fixture(scope="module")
def trained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped in each phase and came to its end."""
    run = tmp_path_factory.mktemp("trained")
    (run / "plan.toml").write_text(PLAN)
    for _ in range(3):
        assert main(_train(run / "plan.toml", dataset, run / "run", "--steps", "5")) == 0
    return run / "run"


def _train(plan: Path, dataset: Path, run: Path, *more: str) -> list[str]:
    folders = ["--config", str(plan), "--data", str(dataset), "--out", str(run)]
    return ["train", "vae", *folders, "--device", "cpu", *more]


def _losses(plan: Plan, dataset: Path, run: Path, *limits: int) -> list[float]:
    losses: list[float] = []
    for steps in limits:
        task = video_vae_task(plan, dataset, run, None, None)
        Training(task, plan, run, "cpu", lambda progress: losses.append(progress.loss)).run(Limits(steps, None))
    return losses


def test_a_stopped_training_gives_the_same_curve(dataset: Path, plan_file: Path, tmp_path: Path) -> None:
    plan = read_plan(plan_file)
    whole = _losses(plan, dataset, tmp_path / "whole", 12)
    assert len(whole) == 12
    assert _losses(plan, dataset, tmp_path / "parts", 4, 5, 3) == whole


def test_a_run_leaves_a_log_curves_and_pictures(trained: Path) -> None:
    evaluations = read_journal(trained, "evaluation")
    assert [line["phase"] for line in evaluations] == ["space", "space", "time", "time"]
    assert all(10 < float(line[name]) < 60 for line in evaluations for name in ("psnr", "psnr_mouth", "psnr_eyes"))
    assert list((trained / "tensorboard").iterdir())
    sheets = sorted((trained / "samples").iterdir())
    assert [sheet.name for sheet in sheets] == [
        "step-00000000-space.png",
        "step-00000006-space.png",
        "step-00000006-time.png",
        "step-00000012-time.png",
    ]
    with Image.open(sheets[0]) as sheet:
        assert sheet.size == (3 * SIZE, int(3.5 * SIZE))


def test_an_exported_vae_is_what_a_preset_loads(
    trained: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "weights" / "tiny" / "vae"
    out.parent.mkdir(parents=True)
    assert main(["train", "export", str(trained), str(out), "--data", str(dataset)]) == 0
    random = load_part("tiny", "vae", "cpu", "float32")
    monkeypatch.setattr(shipped_weights, "_FOLDERS", (tmp_path / "weights",))
    shipped = load_part("tiny", "vae", "cpu", "float32")
    assert shipped.identity.fingerprint != random.identity.fingerprint
    assert shipped.identity.random_weights  # the transformer still is
    vae = shipped.module
    assert isinstance(vae, CausalVideoVAE)
    clips = torch.stack([_video(index) for index in range(6)])
    latents = vae.encode(clips)
    assert float(latents.mean().abs()) < 0.1
    assert 0.7 < float(latents.std()) < 1.3
    assert _psnr(vae.decode(latents), clips) > _psnr(_random_vae().decode(_random_vae().encode(clips)), clips) + 5
    card = (out / "README.md").read_text()
    assert "Apache-2.0" in card
    assert "| space | 6 |" in card


def test_weights_without_optimiser_start_a_training(trained: Path, dataset: Path, tmp_path: Path) -> None:
    export_video_vae(trained, tmp_path / "vae", dataset, None)
    plan_file = tmp_path / "plan.toml"
    plan_file.write_text(PLAN[: PLAN.index("[[phases]]")] + PLAN[PLAN.rindex("[[phases]]") :])
    run = tmp_path / "run"
    assert main(_train(plan_file, dataset, run, "--weights", str(tmp_path / "vae"))) == 0
    before, after = (read_journal(folder, "evaluation") for folder in (trained, run))
    # The start is where the other run ended, but for weights and latent statistics in bfloat16.
    assert float(after[0]["psnr"]) == pytest.approx(float(before[-1]["psnr"]), abs=0.1)


def _start_clips(rows: slice = slice(0), weight: float = 0.0) -> list[StartClip]:
    """Twelve clips; a pixel of `rows` counts `weight` more than any other."""
    counts = torch.ones(len(_video(0)), 1, SIZE, SIZE)
    counts[..., rows, :] += weight
    return [StartClip(_video(index), counts) for index in range(12)]


@pytest.fixture(scope="module")
def started() -> CausalVideoVAE:
    """A linear start, not trained."""
    vae = _random_vae()
    start_linear(vae, _start_clips)
    return vae


def test_the_linear_start_is_an_autoencoder_of_clips_before_any_training(started: CausalVideoVAE) -> None:
    held_out = torch.stack([_video(index) for index in range(20, 24)])
    vae, random = started, _random_vae()
    assert _psnr(vae.decode(vae.encode(held_out)), held_out) > 24
    assert _psnr(random.decode(random.encode(held_out)), held_out) < 15
    # No block adds anything: keys are linear in the latents.
    latents = vae.encode(held_out[:2])
    one, other, mixed = (
        vae.reconstruct(each)[:, ::8] for each in (latents[:1], latents[1:], latents.mean(0, keepdim=True))
    )
    torch.testing.assert_close(mixed, (one + other) / 2, atol=1e-3, rtol=0)


def test_a_picture_has_the_same_latent_first_and_later(started: CausalVideoVAE) -> None:
    still = torch.stack([_video(index)[:1].expand(9, -1, -1, -1) for index in range(20, 24)])
    first, later = started.encode(still).unbind(1)
    assert float((later - first).square().mean()) < 0.2 * float((first.roll(1, 0) - first).square().mean())


def test_what_counts_more_is_kept_better_by_the_linear_start() -> None:
    lower, upper = slice(SIZE // 2, SIZE), slice(SIZE // 2)
    assert _key_error(lower, counting=lower) < 0.97 * _key_error(lower, counting=upper)


def _key_error(rows: slice, counting: slice) -> float:
    """The mean square error in these rows of keys, where those that count did so a thousand times."""
    vae = _random_vae()
    start_linear(vae, lambda: _start_clips(counting, 1000.0))
    errors = torch.stack([(vae.decode(vae.encode(clip[None])) - clip)[0, ::8] for clip in map(_video, range(12))])
    return float(errors[..., rows, :].square().mean())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("mouth = 2.0", "nose = 2.0"), "task_options"),
        (("crop = 32", "crop = 40"), "crop"),
        (("frames = 9", "frames = 8"), "frames"),
        (("eyes = 2.0", "nose = 2.0"), "start says"),
        (("near_mouth = 0.5", "near_mouth = 1.5"), "near_mouth"),
        (("varied = 0.8", "varied = 2"), "varied"),
        (("batch = 4", "bunch = 4"), "options"),
        (('task = "vae"', 'task = "speech-ae"'), "is a plan for"),
        (("steps = 6", "steps = 0"), "steps"),
        (("seed = 0", ""), "not a training plan"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], message: str
) -> None:
    (tmp_path / "plan.toml").write_text(PLAN.replace(*change))
    assert main(_train(tmp_path / "plan.toml", dataset, tmp_path / "run")) == 1
    assert message in capsys.readouterr().err


def test_what_is_missing_is_said(
    dataset: Path, plan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [
        (_train(tmp_path / "none.toml", dataset, tmp_path / "run"), "none.toml"),
        (_train(plan_file, tmp_path / "nowhere", tmp_path / "run"), "no train shards"),
        (_train(plan_file, dataset, tmp_path / "run", "--weights", str(tmp_path)), "no weights"),
        (["train", "export", str(tmp_path), str(tmp_path / "out"), "--data", str(dataset)], "not the folder"),
    ]
    for arguments, message in cases:
        assert main(arguments) == 1
        assert message in capsys.readouterr().err


def test_a_run_keeps_to_its_shards(dataset: Path, plan_file: Path, tmp_path: Path) -> None:
    copy = make_dataset(tmp_path / "faces")
    plan = read_plan(plan_file)
    _losses(plan, copy, tmp_path / "run", 1)
    (copy / "train" / "train-00001.tar").rename(copy / "train" / "train-00002.tar")
    with pytest.raises(TrainingError, match=r"train-00001.tar is missing"):
        _losses(plan, copy, tmp_path / "run", 1)
    (copy / "train" / "train-00002.tar").rename(copy / "train" / "train-00001.tar")
    with pytest.raises(TrainingError, match="another plan"):
        _losses(replace(plan, seed=1), copy, tmp_path / "run", 1)


def _video(index: int) -> torch.Tensor:
    frames: Any = made_up_clip(index).frames_FHW3
    return torch.from_numpy(np.array(frames)).movedim(-1, 1).float() / 127.5 - 1.0


def _random_vae() -> CausalVideoVAE:
    torch.manual_seed(0)
    vae: CausalVideoVAE = CausalVideoVAE(**load_preset("tiny").vae)
    return vae


def _psnr(pictures: torch.Tensor, originals: torch.Tensor) -> float:
    return float(10 * torch.log10(4.0 / (pictures - originals).square().mean()))
