"""The pictures of a data set, decoded once: training reads frames in any order, and H.264 would starve it.

CACHE/train/train-00000.npy [clips, F, H, W, 3] and train-00000.npz (ellipses [clips, F, E, 4]; of which shard it is).

Legend: F frames, H W picture, E ellipses (mouth, left eye, right eye).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
from numpy.lib.format import write_array_header_1_0

from visavis.training.data.clips import read_shard
from visavis.training.data.regions import draw_mask
from visavis.training.errors import TrainingError

Pixels = npt.NDArray[np.uint8]
Singles = npt.NDArray[np.float32]

_PARTIAL: Final = ".partial"


@dataclass(frozen=True, slots=True)
class CachedClip:
    """One clip's pictures [F, H, W, 3], mapped from the disk, and where mouth and eyes are [F, E, 4]."""

    frames_FHW3: Pixels
    ellipses_FE4: Singles

    def mask(self, region: str, frames: slice) -> Singles:
        """The share of each pixel in "mouth" or "eyes", of the chosen frames: [F, H, W] from 0 to 1."""
        chosen = slice(0, 1) if region == "mouth" else slice(1, 3)
        return draw_mask(self.ellipses_FE4[frames, chosen], *self.frames_FHW3.shape[1:3])


def shard_names(dataset: Path, split: str) -> list[str]:
    """The shards of a split, in order. Raises TrainingError when there are none."""
    names = sorted(path.stem for path in (dataset / split).glob(f"{split}-*.tar"))
    if not names:
        raise TrainingError(f"{dataset} has no {split} shards: make them with `visavis data render`")
    return names


def cached_clips(dataset: Path, cache: Path, split: str, shards: Sequence[str]) -> list[CachedClip]:
    """The clips of these shards, decoding what is not in the cache yet.

    Raises TrainingError for a missing shard and a full disk, ShardError for a broken shard.
    """
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        found = list(threads.map(lambda name: _clips_of(dataset / split / f"{name}.tar", cache / split), shards))
    return [clip for clips in found for clip in clips]


def _clips_of(shard: Path, cache: Path) -> list[CachedClip]:
    frames = cache / f"{shard.stem}.npy"
    if not shard.is_file():
        raise TrainingError(f"the shard {shard} is missing: put it back, or begin in another run folder")
    if not _is_of(frames, shard):
        _decode(shard, frames)
    ellipses = _regions(frames)["ellipses"]
    pictures = np.load(frames, mmap_mode="r")
    return [CachedClip(*pair) for pair in zip(pictures, ellipses, strict=True)]


def _is_of(frames: Path, shard: Path) -> bool:
    if not frames.is_file() or not frames.with_suffix(".npz").is_file():
        return False
    return bool((_regions(frames)["source"] == _source(shard)).all())


def _source(shard: Path) -> npt.NDArray[np.int64]:
    status = shard.stat()
    return np.array([status.st_size, status.st_mtime_ns])


def _regions(frames: Path) -> dict[str, npt.NDArray[Any]]:
    with np.load(frames.with_suffix(".npz")) as arrays:
        return dict(arrays)


def _decode(shard: Path, frames: Path) -> None:
    """The regions come first and the frames last, so that both are there when the frames are."""
    frames.parent.mkdir(parents=True, exist_ok=True)
    frames.unlink(missing_ok=True)
    # Processes that decode the same shard at once do not meet.
    partial = frames.with_name(f"{frames.name}.{os.getpid()}{_PARTIAL}")
    try:
        ellipses = _write_frames(shard, partial)
        np.savez(frames.with_suffix(".npz"), ellipses=ellipses, source=_source(shard))
        partial.replace(frames)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise TrainingError(f"the disk of {frames.parent} is full: decoded frames take 50 times the shards") from error
    finally:
        partial.unlink(missing_ok=True)


def _write_frames(shard: Path, path: Path) -> Singles:
    """Writes all frames as one array; the ellipses [clips, F, E, 4]. Written, not mapped: a full disk is an error."""
    ellipses: list[Singles] = []
    with path.open("wb") as file:
        # The header has a fixed length, so it can be written again once the number of clips is known.
        for clip in read_shard(shard):
            if not ellipses:
                _write_header(file, (0, *clip.frames_FHW3.shape))
            file.write(clip.frames_FHW3.tobytes())
            ellipses.append(clip.ellipses_FE4)
            shape = clip.frames_FHW3.shape
        file.seek(0)
        _write_header(file, (len(ellipses), *shape))
    return np.stack(ellipses)


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
