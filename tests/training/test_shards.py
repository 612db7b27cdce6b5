"""Shards: what is written comes back, and what is broken is noticed."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from visavis.training.data.clips import Clip, clip_to_files, read_shard
from visavis.training.data.shards import ClipFiles, ShardError, shard_is_whole, write_shard
from visavis.training.data.visemes import Phoneme


def made_up_clip(index: int, frames: int = 9, size: int = 32) -> Clip:
    random = np.random.default_rng(index)
    smooth = np.linspace(0, 200, size)[:, None, None] + np.linspace(0, 40, size)[:, None] + 10 * np.arange(3)
    return Clip(
        key=f"{index:08d}",
        frames_FHW3=np.stack([smooth + frame for frame in range(frames)]).astype(np.uint8),
        samples_S=random.uniform(-0.5, 0.5, 640 * (frames - 1)).astype(np.float32),
        actions=("jawOpen", "eyeBlinkLeft"),
        curves_FA=random.random((frames, 2)).astype(np.float32),
        head_F6=random.normal(size=(frames, 6)).astype(np.float32),
        ellipses_FE4=np.full((frames, 3, 4), 0.25, dtype=np.float32),
        phonemes=(Phoneme("ɑ", 0.0, 0.1), Phoneme("", 0.1, 0.2)),
        record={"plan": {"identity": index}},
    )


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "train-00000.tar"
    write_shard(path, [clip_to_files(made_up_clip(index)) for index in range(3)])
    return path


KEYS = [f"{index:08d}" for index in range(3)]


def test_what_is_written_comes_back(shard: Path) -> None:
    for index, clip in enumerate(read_shard(shard)):
        written = made_up_clip(index)
        assert clip.key == written.key
        assert clip.actions == written.actions
        assert clip.phonemes == written.phonemes
        np.testing.assert_array_equal(clip.curves_FA, written.curves_FA)
        np.testing.assert_array_equal(clip.head_F6, written.head_F6)
        np.testing.assert_array_equal(clip.ellipses_FE4, written.ellipses_FE4)
        np.testing.assert_allclose(clip.samples_S, written.samples_S, atol=1 / 32_000)
        assert np.abs(clip.frames_FHW3.astype(int) - written.frames_FHW3).mean() < 1.5
        assert clip.frames_FHW3.dtype == np.uint8


def test_masks_of_mouth_and_eyes_come_at_any_size(shard: Path) -> None:
    clip = next(read_shard(shard))
    assert clip.mask("mouth", 8, 8).shape == (9, 8, 8)
    assert clip.mask("eyes", 32, 32).max() == 1
    with pytest.raises(ValueError, match="ears"):
        clip.mask("ears", 8, 8)


def test_a_whole_shard_is_whole_only_with_its_clips(shard: Path, tmp_path: Path) -> None:
    assert shard_is_whole(shard, KEYS)
    assert not shard_is_whole(shard, KEYS[:2])
    assert not shard_is_whole(shard, [*KEYS, "00000003"])
    assert not shard_is_whole(tmp_path / "train-00001.tar", KEYS)


@pytest.mark.parametrize("kept", [0.05, 0.3, 0.5, 0.9])
def test_a_cut_off_shard_is_broken(shard: Path, kept: float) -> None:
    data = shard.read_bytes()
    shard.write_bytes(data[: int(len(data) * kept)])
    assert not shard_is_whole(shard, KEYS)
    with pytest.raises(ShardError, match=r"train-00000\.tar"):
        list(read_shard(shard))


@pytest.mark.parametrize("place", [0.1, 0.4, 0.75])
def test_a_changed_byte_is_noticed(shard: Path, place: float) -> None:
    data = bytearray(shard.read_bytes())
    data[int(len(data) * place)] ^= 0xFF
    shard.write_bytes(bytes(data))
    assert not shard_is_whole(shard, KEYS)


def test_a_file_that_is_no_tar_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "train-00000.tar"
    path.write_text("no shard" * 200)
    with pytest.raises(ShardError, match="broken"):
        list(read_shard(path))


def test_a_full_disk_leaves_no_half_shard(tmp_path: Path) -> None:
    def clips() -> Iterator[ClipFiles]:
        yield clip_to_files(made_up_clip(0))
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_shard(tmp_path / "train-00000.tar", clips())
    assert not list(tmp_path.iterdir())


def test_the_same_clip_gives_the_same_bytes() -> None:
    first = clip_to_files(made_up_clip(5))
    for _ in range(30):  # x264 with its macroblock tree differed at every tenth try
        assert clip_to_files(made_up_clip(5)) == first
