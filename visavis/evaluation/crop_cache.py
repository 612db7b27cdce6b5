"""Faces and mouths of a data set, cut out once, for the trainings of the networks that judge them.

CACHE/face_crops/SHARD-HASH.npz; HASH is of the shard and of how things are cut out, so nothing grows stale.

N clips, F frames without the portrait, P portrait and every eighth frame, K pixels, S samples
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from visavis.evaluation.face_crops import FACE, MOUTH, cut_out
from visavis.evaluation.sync_net import grey
from visavis.training.data.clip_plan import Split
from visavis.training.data.clips import Clip, read_shard
from visavis.training.errors import TrainingError

# Changes with the meaning of the files.
_FORMAT: Final = 1
_FACE_EVERY: Final = 8
_FULL_SCALE: Final = 32_767


@dataclass(frozen=True, slots=True)
class CroppedClip:
    """What the networks see of a clip. `faces_PKK3[0]` is the portrait; `voice` is empty in silence."""

    identity: int
    voice: str
    mouths_FKK: npt.NDArray[np.uint8]
    faces_PKK3: npt.NDArray[np.uint8]
    samples_S: npt.NDArray[np.float32]


def cropped_clips(dataset: Path, cache: Path | None, split: Split) -> list[CroppedClip]:
    """All clips of a split; what is not in the cache yet is cut out (half a second a clip).

    `cache` None: DATASET.cache. Raises TrainingError for no shards and a full disk, ShardError for a broken shard.
    """
    folder = (cache or dataset.with_name(f"{dataset.name}.cache")) / "face_crops"
    shards = sorted((dataset / split).glob(f"{split}-*.tar"))
    if not shards:
        raise TrainingError(f"{dataset} has no {split} shards: make them with `visavis data render`")
    return [clip for shard in shards for clip in _of_shard(shard, folder)]


def _of_shard(shard: Path, folder: Path) -> list[CroppedClip]:
    path = folder / f"{shard.stem}-{_identity(shard)}.npz"
    try:
        if not path.is_file():
            _write(path, [_cropped(clip) for clip in read_shard(shard)])
        with np.load(path, allow_pickle=False) as arrays:
            columns = [arrays[name] for name in ("identities", "voices", "mouths", "faces", "samples")]
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise TrainingError(f"cannot keep the cut-outs in {path}: {error}; remove it to make it again") from error
    return [
        CroppedClip(int(identity), str(voice), mouths, faces, samples.astype(np.float32) / _FULL_SCALE)
        for identity, voice, mouths, faces, samples in zip(*columns, strict=True)
    ]


def _cropped(clip: Clip) -> CroppedClip:
    faces = cut_out(clip.frames_FHW3[::_FACE_EVERY], clip.ellipses_FE4[::_FACE_EVERY], FACE)
    mouths = grey(cut_out(clip.frames_FHW3, clip.ellipses_FE4, MOUTH))[1:]
    plan = clip.record["plan"]
    return CroppedClip(int(plan["identity"]), str(plan["voice"]), mouths, faces, clip.samples_S)


def _write(path: Path, clips: Sequence[CroppedClip]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    with partial.open("wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            identities=np.array([clip.identity for clip in clips]),
            voices=np.array([clip.voice for clip in clips]),
            mouths=np.stack([clip.mouths_FKK for clip in clips]),
            faces=np.stack([clip.faces_PKK3 for clip in clips]),
            samples=np.stack([np.rint(clip.samples_S * _FULL_SCALE).astype(np.int16) for clip in clips]),
        )
    partial.replace(path)


def _identity(shard: Path) -> str:
    digest = hashlib.sha256(repr((_FORMAT, _FACE_EVERY, astuple(FACE), astuple(MOUTH))).encode())
    with shard.open("rb") as content:
        digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16]
