"""A teacher and a student learn by command, resume, ship, and stream."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.motion.talkers import World, make_plan, write_plan
from visavis.cli.main import main
from visavis.models import shipped_weights
from visavis.models.checkpoints import load_part
from visavis.models.pipeline import RestPipeline
from visavis.models.video_vae import CausalVideoVAE
from visavis.training.data.clips import read_shard
from visavis.training.data.shards import read_members, write_shard
from visavis.training.errors import TrainingError
from visavis.training.journal import read_journal
from visavis.training.loop import Training
from visavis.training.motion.latents_cache import mouth_of_latents
from visavis.training.motion.measures import held_out_measures
from visavis.training.motion.setup import student_task, teacher_task
from visavis.training.plan import Plan
from visavis.training.task import Limits
from visavis.training.video_vae_task import as_video

# Beside a training on the same cores everything takes ten times as long.
pytestmark = pytest.mark.timeout(600)


def _command(world: World, task: str, folder: Path, *more: str) -> list[str]:
    plan = write_plan(folder / f"{task}.toml", task)
    folders = ["--config", str(plan), "--data", str(world.dataset), "--out", str(folder / task)]
    return ["train", task, *folders, "--vae", str(world.vae), "--device", "cpu", *more]


@pytest.fixture(scope="module")
def trained(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of a teacher and of the student that started from it, and weights/tiny with what they ship."""
    folder = tmp_path_factory.mktemp("trained")
    weights = folder / "weights" / "tiny"
    shutil.copytree(world.vae, weights / "vae")
    assert main(_command(world, "teacher", folder, "--speech-ae", str(world.speech_ae))) == 0
    assert main(["train", "export", str(folder / "teacher"), str(weights), "--data", str(world.dataset)]) == 0
    assert main(_command(world, "student", folder, "--weights", str(weights / "teacher"))) == 0
    assert main(["train", "export", str(folder / "student"), str(weights), "--data", str(world.dataset)]) == 0
    return folder


def _losses(plan: Plan, world: World, run: Path, *limits: int) -> list[float]:
    losses: list[float] = []
    make = teacher_task if plan.task == "teacher" else student_task
    for steps in limits:
        task = make(plan, world.dataset, run, None, None, world.vae, world.speech_ae)
        Training(task, plan, run, "cpu", lambda progress: losses.append(progress.loss)).run(Limits(steps, None))
    return losses


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_a_stopped_training_gives_the_same_curve(world: World, tmp_path: Path, kind: str) -> None:
    plan = make_plan(tmp_path, kind, steps=4)
    whole = _losses(plan, world, tmp_path / "whole", 4)
    assert len(whole) == 4
    assert _losses(plan, world, tmp_path / "parts", 1, 3) == whole


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_it_learns(world: World, tmp_path: Path, kind: str) -> None:
    """Ten clips by heart: the velocity of pure noise becomes known, and the mouth follows the speech."""
    plan = make_plan(tmp_path, kind, steps=140)
    make = teacher_task if kind == "teacher" else student_task
    task = make(plan, world.dataset, tmp_path / "run", None, None, world.vae, world.speech_ae)
    losses: list[float] = []
    Training(task, plan, tmp_path / "run", "cpu", lambda progress: losses.append(progress.loss)).run(Limits(None, None))
    before, after = float(np.mean(losses[:5])), float(np.mean(losses[-20:]))
    assert before > 1.6
    assert after < 0.6 * before
    clips = task.data.train.spread(8)
    with torch.no_grad():
        measures = held_out_measures(
            clips, lambda batch, noise: task.predict(task.model, batch, noise), torch.device("cpu")
        )
    assert measures["error_1"] < 1.0
    assert measures["error_0.3"] < 1.6


def test_a_run_leaves_measures_pictures_and_a_film(trained: Path) -> None:
    for kind in ("teacher", "student"):
        evaluations = read_journal(trained / kind, "evaluation")
        assert len(evaluations) == 2
        assert all(0 < float(line[name]) < 5 for line in evaluations for name in ("error", "mouth_error_0.9"))
        assert "speech_gain" in evaluations[-1]
        sheets = sorted((trained / kind / "samples").glob("*.png"))
        with Image.open(sheets[-1]) as sheet:
            assert sheet.size == (8 * 64, 2 * 3 * 64)
        with av.open(str(sheets[-1].with_suffix(".mp4"))) as film:
            pictures = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
            assert film.streams.audio[0].duration is not None
        assert len(pictures) == 3 * 120
        assert pictures[0].shape == (64, 128, 3)


def test_a_student_starts_where_its_teacher_ended(world: World, trained: Path, tmp_path: Path) -> None:
    plan = make_plan(tmp_path, "student")
    weights = trained / "weights" / "tiny" / "teacher"
    task = student_task(plan, world.dataset, tmp_path / "run", None, weights, world.vae)
    state = torch.load(sorted((trained / "teacher" / "checkpoints").iterdir())[-1], weights_only=True)["averaged"]
    for name, value in task.model.state_dict().items():
        torch.testing.assert_close(value, state[f"module.{name}"].bfloat16().float(), msg=name)


def test_what_ships_is_what_the_preset_streams_with(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = load_part("tiny", "transformer", "cpu", "float32")
    monkeypatch.setattr(shipped_weights, "_FOLDERS", (trained / "weights",))
    identities = [load_part("tiny", part, "cpu").identity for part in ("transformer", "speech_encoder", "vae")]
    assert len({identity.fingerprint for identity in identities}) == 1
    assert identities[0].fingerprint != random.identity.fingerprint
    assert not any(identity.random_weights for identity in identities)
    pipeline = RestPipeline.from_preset("tiny", device="cpu")
    clip = pipeline(np.full((64, 64, 3), 90, np.uint8), np.zeros(16_000, np.float32))
    assert clip.pictures_FHW3.shape == (25, 64, 64, 3)
    weights = trained / "weights" / "tiny"
    assert {path.name for path in weights.iterdir()} == {
        "vae",
        "teacher",
        "teacher_speech_ae",
        "transformer",
        "speech_ae",
    }
    for part in ("teacher", "transformer", "speech_ae"):
        card = (weights / part / "README.md").read_text()
        assert "Apache-2.0" in card
        assert "| speech_gain |" in card
        assert "10 clips of 10 synthetic people" in card


def test_a_whole_model_folder_streams(world: World, trained: Path, tmp_path: Path) -> None:
    export = ["train", "export", str(trained / "student"), str(tmp_path / "talker"), "--data", str(world.dataset)]
    assert main([*export, "--whole", "--vae", str(world.vae)]) == 0
    pipeline = RestPipeline.from_pretrained(tmp_path / "talker", device="cpu")
    assert not pipeline.config["random_weights"]
    chunk = next(iter(pipeline.stream(np.full((64, 64, 3), 90, np.uint8), [np.zeros(16_000, np.float32)])))
    assert chunk.pictures_FHW3.shape == (24, 64, 64, 3)
    assert load_part(str(tmp_path / "talker"), "transformer", "cpu").identity.name == "talker"


def test_latents_are_those_of_the_clips(world: World, trained: Path, tmp_path: Path) -> None:
    data = world.data(make_plan(tmp_path, "teacher"), tmp_path / "run")
    vae: CausalVideoVAE = CausalVideoVAE.from_pretrained(world.vae)
    clip = next(iter(read_shard(world.dataset / "train" / "train-00000.tar")))
    picture = data.train.find(clip.key).picture
    expected = vae.encode(as_video(torch.from_numpy(clip.frames_FHW3)[None], vae.device))[0]
    torch.testing.assert_close(picture.latents_THWC.float(), expected, atol=5e-3, rtol=5e-3)
    # the third of the reference pictures, encoded alone
    frame = round(8 + 2 * (120 - 8) / 5)
    alone = vae.encode_image(as_video(torch.from_numpy(clip.frames_FHW3[frame])[None], vae.device))[0, 0]
    torch.testing.assert_close(picture.references_KHWC[2].float(), alone, atol=5e-3, rtol=5e-3)
    mouth = mouth_of_latents(torch.from_numpy(clip.mask("mouth", 2, 2)), 8)
    assert mouth.shape == (16, 2, 2)
    torch.testing.assert_close(mouth[3], torch.from_numpy(clip.mask("mouth", 2, 2)[17:25]).mean(dim=0))
    torch.testing.assert_close(picture.mouth_THW.float(), mouth, atol=1e-3, rtol=0)
    assert data.train.identities == {str(index) for index in range(10)}
    assert data.held_out.identities == {"10", "11", "12"}


def test_mirrored_clips_are_clips_of_mirrored_pictures(world: World, tmp_path: Path) -> None:
    plan = make_plan(tmp_path, "teacher")
    both = Plan(
        **{
            **{name: getattr(plan, name) for name in plan.__slots__},
            "task_options": {**plan.task_options, "mirrored": True},
        }
    )
    data = world.data(both, tmp_path / "run")
    assert (len(data.train), len(data.held_out)) == (20, 3)
    one, other = data.train[0], data.train[10]
    assert one.picture.key == other.picture.key
    assert torch.equal(one.states_NPX, other.states_NPX)
    torch.testing.assert_close(other.picture.mouth_THW, one.picture.mouth_THW.flip(-1))
    clip = next(iter(read_shard(world.dataset / "train" / "train-00000.tar")))
    vae: CausalVideoVAE = CausalVideoVAE.from_pretrained(world.vae)
    expected = vae.encode(as_video(torch.from_numpy(clip.frames_FHW3[:, :, ::-1].copy())[None], vae.device))[0]
    torch.testing.assert_close(other.picture.latents_THWC.float(), expected, atol=5e-3, rtol=5e-3)


def test_what_does_not_belong_together_is_refused(world: World, trained: Path, tmp_path: Path) -> None:
    plan = make_plan(tmp_path, "teacher")
    run = tmp_path / "run"
    shutil.copytree(trained / "teacher", run)
    torch.manual_seed(7)
    other: CausalVideoVAE = CausalVideoVAE(**CausalVideoVAE.load_config(world.vae))
    other.save_pretrained(tmp_path / "vae")
    with pytest.raises(TrainingError, match="another VAE"):
        teacher_task(plan, world.dataset, run, None, None, tmp_path / "vae", world.speech_ae)
    shutil.copytree(tmp_path / "vae", tmp_path / "weights" / "vae")
    export = ["train", "export", str(run), str(tmp_path / "weights"), "--data", str(world.dataset)]
    assert main(export) == 1
    with pytest.raises(TrainingError, match="no SpeechAE"):
        teacher_task(plan, world.dataset, tmp_path / "new", None, None, world.vae)
    with pytest.raises(TrainingError, match="no video VAE"):
        teacher_task(plan, world.dataset, tmp_path / "new", None, None, None, world.speech_ae)
    with pytest.raises(TrainingError, match="stand beside its SpeechAE"):
        teacher_task(plan, world.dataset, tmp_path / "new", None, world.vae, world.vae)
    record = json.loads((run / "motion.json").read_text())
    record["latents"]["train"].append("train-00009-0.safetensors")
    (run / "motion.json").write_text(json.dumps(record))
    with pytest.raises(TrainingError, match="train-00009"):
        teacher_task(plan, world.dataset, run, None, None, world.vae, world.speech_ae)


def test_nobody_is_in_both_splits(world: World, tmp_path: Path) -> None:
    data = tmp_path / "faces"
    shutil.copytree(world.dataset, data)
    members = list(read_members(data / "train" / "train-00001.tar"))
    write_shard(data / "test" / "test-00000.tar", members)
    with pytest.raises(TrainingError, match="5 people are in both splits"):
        teacher_task(make_plan(tmp_path, "teacher"), data, tmp_path / "run", None, None, world.vae, world.speech_ae)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("mouth = 8.0", "nose = 8.0"), "task_options"),
        (("drop_both = 0.1", "drop_both = 1.1"), "from 0 to 1"),
        (("batch = 4", "bunch = 4"), "options are"),
        (("speech_rate = 0.1", "speech_rate = -1.0"), "speech_rate"),
        (('preset = "tiny"', 'preset = "mini"'), "not of the preset"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], message: str
) -> None:
    command = _command(world, "student", tmp_path, "--speech-ae", str(world.speech_ae))
    path = tmp_path / "student.toml"
    path.write_text(path.read_text().replace(*change))
    assert main(command) == 1
    assert message in capsys.readouterr().err
