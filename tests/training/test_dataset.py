"""Rendering a data set: resumed, deterministic, with clear refusals. Pictures are small and voices made up."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from tests.training.made_up_speaker import ToneSpeaker
from visavis.training.data import dataset, dataset_folder
from visavis.training.data.clips import read_shard
from visavis.training.data.dataset import Progress, render_dataset, shards_of
from visavis.training.data.dataset_folder import DatasetError
from visavis.training.data.shards import ClipFiles, write_shard
from visavis.training.data.studio import ClipSettings
from visavis.training.data.voices import ENGINES

SETTINGS = ClipSettings(seed=3, engines=ENGINES, frames=9, size=32)


def render(
    assets: Path, folder: Path, clips: int, settings: ClipSettings = SETTINGS, workers: int = 1
) -> list[Progress]:
    return list(render_dataset(assets, folder, clips, settings, workers, ToneSpeaker))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.tar"))}


@pytest.fixture
def three_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "CLIPS_PER_SHARD", 3)


@pytest.fixture(scope="module")
def rendered(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    render(assets, folder, 7)
    return folder


def test_every_clip_is_in_one_shard_of_its_split() -> None:
    shards = shards_of(Path("data"), 300)
    assert sorted(index for shard in shards for index in shard.clips) == list(range(300))
    assert {shard.path.parent.name for shard in shards} == {"train", "test"}


def test_clips_have_all_that_training_needs(rendered: Path) -> None:
    (shard,) = (rendered / "train").glob("*.tar")
    clips = list(read_shard(shard))
    assert [int(clip.key) for clip in clips] == [0, 1, 2, 3, 4, 6]
    for clip in clips:
        assert clip.frames_FHW3.shape == (9, 32, 32, 3)
        assert clip.samples_S.shape == (8 * 640,)
        assert clip.curves_FA.shape == (9, len(clip.actions))
        assert clip.ellipses_FE4.shape == (9, 3, 4)
        assert clip.mask("mouth", 8, 8).max() > 0
        assert set(clip.record) >= {"plan", "person", "shot", "format"}
    assert len({clip.record["plan"]["identity"] for clip in clips}) == len(clips)


def test_a_second_run_renders_nothing(assets: Path, rendered: Path) -> None:
    before = content(rendered)
    assert all(progress.already_there for progress in render(assets, rendered, 7))
    assert content(rendered) == before


def test_the_same_seed_gives_the_same_bytes_in_any_number_of_processes(
    assets: Path, rendered: Path, tmp_path: Path
) -> None:
    render(assets, tmp_path, 7, workers=2)
    assert content(tmp_path) == content(rendered)


def test_another_seed_gives_other_people_and_words(assets: Path, rendered: Path, tmp_path: Path) -> None:
    render(assets, tmp_path, 1, ClipSettings(seed=4, engines=ENGINES, frames=9, size=32))
    other, first = (next(read_shard(folder / "train" / "train-00000.tar")) for folder in (tmp_path, rendered))
    assert other.record["plan"] != first.record["plan"]
    assert np.abs(other.frames_FHW3.astype(int) - first.frames_FHW3).mean() > 5


@pytest.mark.usefixtures("three_a_shard")
def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(assets: Path, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    render(assets, whole, 7)
    run = render_dataset(assets, stopped, 7, SETTINGS, 1, ToneSpeaker)
    next(run)
    run.close()
    (stopped / "train" / "train-00001.tar.partial").write_bytes(b"half a shard of a killed run")
    done = render(assets, stopped, 7)
    assert [progress.already_there for progress in done] == [True, False, False]
    assert content(stopped) == content(whole)


@pytest.mark.usefixtures("three_a_shard")
def test_more_clips_keep_what_is_there(assets: Path, tmp_path: Path) -> None:
    render(assets, tmp_path, 4)
    assert [progress.already_there for progress in render(assets, tmp_path, 7)] == [True, False, False]


def test_a_broken_shard_is_made_again(assets: Path, rendered: Path) -> None:
    before = content(rendered)
    shard = rendered / "test" / "test-00000.tar"
    shard.write_bytes(shard.read_bytes()[:5_000])
    done = render(assets, rendered, 7)
    assert [progress.shard.path.name for progress in done if not progress.already_there] == [shard.name]
    assert content(rendered) == before


def test_a_folder_of_another_seed_is_refused(assets: Path, rendered: Path) -> None:
    with pytest.raises(DatasetError, match="seed 3 instead of 9"):
        render(assets, rendered, 7, ClipSettings(seed=9, engines=ENGINES, frames=9, size=32))


def test_a_folder_of_other_voices_is_refused(assets: Path, rendered: Path) -> None:
    with pytest.raises(DatasetError, match="engines"):
        render(assets, rendered, 7, ClipSettings(seed=3, engines=("espeak",), frames=9, size=32))


def test_shards_of_unknown_origin_are_refused(assets: Path, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "train-00000.tar").touch()
    with pytest.raises(DatasetError, match="no dataset"):
        render(assets, tmp_path, 1)


def test_a_full_disk_keeps_the_finished_shards(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, three_a_shard: None
) -> None:
    def write(path: Path, clips: Iterable[ClipFiles]) -> None:
        if path.name == "train-00001.tar":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_shard(path, clips)

    monkeypatch.setattr(dataset_folder, "write_shard", write)
    with pytest.raises(DatasetError, match=r"disk is full at train-00001\.tar.*same command again"):
        render(assets, tmp_path, 7)
    monkeypatch.undo()
    monkeypatch.setattr(dataset, "CLIPS_PER_SHARD", 3)
    assert [progress.already_there for progress in render(assets, tmp_path, 7)] == [True, False, False]


def test_a_folder_that_cannot_be_made_is_refused(assets: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="cannot use"):
        render(assets, tmp_path / "file" / "data", 1)
