"""Decoded pictures are those of the shards, and what goes wrong is said."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.made_up_dataset import FRAMES, make_dataset
from visavis.training import frame_cache
from visavis.training.data.clips import read_shard
from visavis.training.data.shards import ShardError
from visavis.training.errors import TrainingError
from visavis.training.frame_cache import cached_clips, shard_names

SHARDS = ["train-00000", "train-00001"]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "faces")


def test_cached_clips_are_those_of_the_shards(dataset: Path, tmp_path: Path) -> None:
    assert shard_names(dataset, "train") == SHARDS
    clips = cached_clips(dataset, tmp_path / "cache", "train", SHARDS)
    originals = [clip for name in SHARDS for clip in read_shard(dataset / "train" / f"{name}.tar")]
    moment = slice(3, 9)
    for clip, original in zip(clips, originals, strict=True):
        np.testing.assert_array_equal(clip.frames_FHW3, original.frames_FHW3)
        for region in ("mouth", "eyes"):
            np.testing.assert_array_equal(clip.mask(region, moment), original.mask(region, 64, 64)[moment])
    assert len(clips[0].frames_FHW3) == FRAMES


def test_a_shard_is_decoded_once_and_again_when_it_changed(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def noted(path: Path) -> Any:
        read.append(path.stem)
        return read_shard(path)

    monkeypatch.setattr(frame_cache, "read_shard", noted)
    for _ in range(2):
        cached_clips(dataset, tmp_path / "cache", "train", SHARDS)
    assert sorted(read) == SHARDS  # beside each other
    other = dataset / "train" / "train-00001.tar"
    os.utime(other, (0, 0))  # coarse clocks give two files that are written together one time
    other.replace(dataset / "train" / "train-00000.tar")
    clips = cached_clips(dataset, tmp_path / "cache", "train", SHARDS[:1])
    assert read[2:] == SHARDS[:1]
    np.testing.assert_array_equal(
        clips[0].frames_FHW3, next(read_shard(dataset / "train" / "train-00000.tar")).frames_FHW3
    )


def test_missing_data_is_said(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no train shards"):
        shard_names(tmp_path / "nowhere", "train")
    with pytest.raises(TrainingError, match=r"train-00007.tar is missing"):
        cached_clips(dataset, tmp_path / "cache", "train", ["train-00007"])


def test_a_broken_shard_is_said_and_leaves_nothing(dataset: Path, tmp_path: Path) -> None:
    path = dataset / "train" / "train-00001.tar"
    path.write_bytes(path.read_bytes()[:-10_240])
    with pytest.raises(ShardError, match="train-00001"):
        cached_clips(dataset, tmp_path / "cache", "train", SHARDS)
    assert {path.name for path in (tmp_path / "cache" / "train").iterdir()} == {"train-00000.npy", "train-00000.npz"}


def test_a_full_disk_is_said_and_leaves_nothing(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_names: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(TrainingError, match="full"):
        cached_clips(dataset, tmp_path / "cache", "train", SHARDS)
    assert not list((tmp_path / "cache" / "train").iterdir())
