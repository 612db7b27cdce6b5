"""The video latents of rendered clips on disk: encoded once, read for every sample.

FOLDER/VAE/NAME-IDENTITY.safetensors: a shard; VAE is of the autoencoder's weights, IDENTITY of the shard. So latents of
other weights or clips are never taken for these, and nothing grows stale.

M clips, T = 16 latent frames (121 frames), H W latent rows and columns, C latent channels, K reference pictures
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from visavis.models.video_autoencoder import VideoAutoencoder
from visavis.training.data.clips import Clip, read_shard
from visavis.training.errors import TrainingError
from visavis.training.speech.recordings import ShardSpeech
from visavis.training.video_vae_task import as_video
from visavis.training.whole_file import save_whole

# Changes with the meaning of the files.
_FORMAT: Final = "1"
# Pictures of each clip that may stand for its person, besides the first one; spread evenly.
REFERENCES: Final = 6
_MIRRORED: Final = "-mirrored"


@dataclass(frozen=True, slots=True)
class LatentClip:
    """One clip's latents (float16, normalised). `mouth_THW` is the share of mouth in each cell, from 0 to 1."""

    key: str
    identity: str
    voice: str
    latents_THWC: Tensor
    # Single pictures of it, each encoded alone.
    references_KHWC: Tensor
    mouth_THW: Tensor


def latents_path(shard: ShardSpeech, folder: Path, fingerprint: str, *, mirrored: bool) -> Path:
    """Where the shard's latents are, or will be."""
    name = f"{shard.name}-{shard.identity[:16]}{_MIRRORED if mirrored else ''}.safetensors"
    return folder / fingerprint[:16] / name


def cache_latents(
    shard: ShardSpeech, folder: Path, vae: VideoAutoencoder, fingerprint: str, *, mirrored: bool = False
) -> Path:
    """The file with the shard's latents, computed unless it is there already; `mirrored`, left and right exchanged.

    `fingerprint` is of the VAE's weights. Written beside its place and moved there when whole. Raises TrainingError
    when the clips differ in length or the disk refuses, ShardError for a broken shard.
    """
    path = latents_path(shard, folder, fingerprint, mirrored=mirrored)
    if path.is_file():
        return path
    clips: list[list[str]] = []
    encoded: list[dict[str, Tensor]] = []
    for clip in read_shard(shard.path):
        plan = clip.record["plan"]
        clips.append([clip.key, str(plan["identity"]), str(plan.get("voice", ""))])
        encoded.append(encode_clip(clip, vae, mirrored=mirrored))
    if len({tensors["latents"].shape for tensors in encoded}) != 1:
        raise TrainingError(f"the clips of {shard.path} must be of one length, and one at least")
    stacked = {part: torch.stack([tensors[part] for tensors in encoded]) for part in encoded[0]}
    _write(path, stacked, {"format": _FORMAT, "clips": json.dumps(clips)})
    return path


@torch.no_grad()
def encode_clip(clip: Clip, vae: VideoAutoencoder, *, mirrored: bool) -> dict[str, Tensor]:
    """`latents` [T, H, W, C], `references` [K, H, W, C] and `mouth` [T, H, W], on the CPU in float16."""
    frames = len(clip.frames_FHW3)
    chosen = np.linspace(vae.temporal_compression_ratio, frames - 1, REFERENCES).round().astype(int)
    video_F3HW = as_video(torch.from_numpy(clip.frames_FHW3), vae.device)
    if mirrored:
        video_F3HW = video_F3HW.flip(-1)
    latents_THWC = vae.encode(video_F3HW[None])[0]
    references_KHWC = vae.encode_image(video_F3HW[torch.from_numpy(chosen)])[:, 0]
    mouth_FHW = torch.from_numpy(clip.mask("mouth", *latents_THWC.shape[1:3]))
    mouth_THW = mouth_of_latents(mouth_FHW.flip(-1) if mirrored else mouth_FHW, vae.temporal_compression_ratio)
    parts = {"latents": latents_THWC, "references": references_KHWC, "mouth": mouth_THW}
    return {name: part.half().cpu().contiguous() for name, part in parts.items()}


def mouth_of_latents(mouth_FHW: Tensor, frames_a_latent: int) -> Tensor:
    """Means over the frames of each latent frame, the first being one frame alone: [8k + 1, ...] -> [k + 1, ...]."""
    later = mouth_FHW[1:].unflatten(0, (-1, frames_a_latent)).mean(dim=1)
    return torch.cat([mouth_FHW[:1], later])


def _write(path: Path, tensors: dict[str, Tensor], about: dict[str, str]) -> None:
    try:
        save_whole(path, tensors, about)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"cannot cache video latents in {path.parent}: {error}") from error


class CachedLatents:
    """The clips of several cache files; a clip is read from disk when it is asked for. Use as a context manager."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Raises TrainingError for a file that cannot be read."""
        self._files = ExitStack()
        self._rows: list[tuple[Any, int, str, str, str]] = []
        for path in paths:
            try:
                file = self._files.enter_context(safe_open(path, framework="pt"))
                about = file.metadata()
                readable = about["format"] == _FORMAT
                clips = json.loads(about["clips"])
            except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
                raise TrainingError(f"{path} is broken ({error}): remove it, it will be made again") from error
            if not readable:
                raise TrainingError(f"{path} is of another version of visavis: remove it, it will be made again")
            self._rows += [(file, row, *clip) for row, clip in enumerate(clips)]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> LatentClip:
        file, row, key, identity, voice = self._rows[index]
        parts = (file.get_slice(part)[row] for part in ("latents", "references", "mouth"))
        return LatentClip(key, identity, voice, *parts)

    @property
    def keys(self) -> list[str]:
        """Of all clips, in order."""
        return [key for _, _, key, _, _ in self._rows]

    @property
    def identities(self) -> set[str]:
        """Who is in the clips."""
        return {identity for _, _, _, identity, _ in self._rows}

    def __iter__(self) -> Iterator[LatentClip]:
        return (self[index] for index in range(len(self)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()
