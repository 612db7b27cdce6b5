"""The networks that judge lips and identity learn on a small data set, ship, and are found by whoever measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.training.made_up_talker import make_talkers
from visavis.cli.main import main
from visavis.evaluation.crop_cache import cropped_clips
from visavis.evaluation.face_embedder import FaceEmbedder
from visavis.evaluation.face_embedder_training import face_embedder_task
from visavis.evaluation.judges import load_judges
from visavis.evaluation.sync_net import WINDOW_FRAMES, SyncNet
from visavis.evaluation.sync_net_training import sync_net_task
from visavis.training.errors import TrainingError
from visavis.training.journal import read_journal
from visavis.training.plan import read_plan

PLAN = """\
task = "{task}"
preset = "tiny"
seed = 0
average_decay = 0.8

[every_minutes]
checkpoint = 1000.0
evaluation = 1000.0

[task_options]
{network}

[[phases]]
name = "all"
steps = {steps}
learning_rate = 3e-3
warmup_steps = 2
accumulation = 1
gradient_checkpointing = false
options = {options}
"""
SYNC = {
    "task": "sync-net",
    "network": "picture_widths = [8, 16, 16, 16]\nembedding = 16",
    "steps": 30,
    "options": "{ batch = 4, windows = 8 }",
}
FACES = {
    "task": "face-embedder",
    "network": "widths = [8, 16, 16]\nembedding = 16",
    "steps": 30,
    "options": "{ batch = 20 }",
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_talkers(tmp_path_factory.mktemp("data") / "faces")


def _plan(path: Path, **parts: object) -> Path:
    path.write_text(PLAN.format(**parts))
    return path


@pytest.mark.parametrize("parts", [SYNC, FACES], ids=["sync-net", "face-embedder"])
def test_a_judge_learns_and_is_found_where_it_was_exported(
    dataset: Path, tmp_path: Path, parts: dict[str, object]
) -> None:
    task, run = str(parts["task"]), tmp_path / "run"
    judges = tmp_path / "judges"
    config = _plan(tmp_path / "plan.toml", **parts)
    folders = ["--data", str(dataset), "--out", str(run)]
    assert main(["train", task, "--config", str(config), *folders, "--device", "cpu"]) == 0
    out = judges / task.replace("-", "_")
    assert main(["train", "export", str(run), str(out), "--data", str(dataset)]) == 0

    lines = read_journal(run, "train")
    assert float(lines[-1]["loss"]) < 0.9 * float(lines[0]["loss"])
    assert read_journal(run, "evaluation")[-1].keys() >= (
        {"confidence", "offset_found", "confidence_of_strange_speech"}
        if task == "sync-net"
        else {"own_portrait_nearest", "cosine", "cosine_of_others"}
    )
    found = load_judges(None, "", judges)
    assert isinstance(found.sync_net, SyncNet) == (task == "sync-net")
    assert isinstance(found.embedder, FaceEmbedder) == (task == "face-embedder")
    assert "synthetic" in (out / "README.md").read_text()


def test_cut_outs_are_made_once_for_each_state_of_a_shard(dataset: Path, tmp_path: Path) -> None:
    clips = cropped_clips(dataset, tmp_path, "train")
    (shard, _) = sorted((tmp_path / "face_crops").iterdir())
    written = shard.stat().st_mtime_ns

    again = cropped_clips(dataset, tmp_path, "train")

    assert shard.stat().st_mtime_ns == written
    assert [clip.identity for clip in clips] == list(range(10))
    assert clips[0].mouths_FKK.shape == (48, 48, 48)
    assert clips[0].faces_PKK3.shape == (7, 72, 72, 3)
    np.testing.assert_array_equal(clips[3].samples_S, again[3].samples_S)
    with pytest.raises(TrainingError, match="no train shards"):
        cropped_clips(tmp_path, tmp_path, "train")


def test_plans_that_mean_nothing_are_refused(dataset: Path, tmp_path: Path) -> None:
    for make, parts, options in (
        (sync_net_task, SYNC, "{ batch = 1 }"),
        (sync_net_task, SYNC, f"{{ batch = 1, windows = {48 - WINDOW_FRAMES + 1} }}"),
        (face_embedder_task, FACES, "{ batch = 0 }"),
    ):
        plan = read_plan(_plan(tmp_path / "plan.toml", **{**parts, "options": options}))
        task = make(plan, dataset, tmp_path / "run", None, None)
        with pytest.raises(TrainingError, match="all"):
            task.begin_phase(plan.phases[0])
        with pytest.raises(TrainingError, match="can be made"):
            make(plan, dataset, tmp_path / "run", None, tmp_path)
