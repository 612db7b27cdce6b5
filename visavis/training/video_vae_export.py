"""What ships of a trained video VAE: averaged weights with the statistics of its latents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from visavis.models.video_vae import CausalVideoVAE
from visavis.training.frame_cache import CachedClip
from visavis.training.model_folder import ModelCard, read_run, write_part
from visavis.training.video_vae_task import as_video
from visavis.training.video_vae_training import cached_splits, video_vae

_CLIPS: Final = 96
_FRAMES: Final = 33

_PURPOSE: Final = """\
Video autoencoder of the preset `{preset}`: 32 x 32 pixels and 8 frames become one latent of 128 channels, the first
frame alone; causal, so chunks decode like the whole. Made for 256 x 256 talking heads at 25 frames per second."""
_DATA: Final = """\
{clips} clips of 121 frames of synthetic people who speak (`visavis data render`, docs/data.md): no real person, CC0
assets. `latents_mean` and `latents_std` are those of {measured} of these clips."""
_LIMITS: Final = """\
It has seen rendered faces only, in one framing, without beards, glasses or hats, and no real footage: other pictures
lose detail. Fast motion of the mouth is softer than still pictures."""


def export_video_vae(run: Path, out: Path, dataset: Path, cache: Path | None) -> None:
    """Writes the folder `out` from the last checkpoint in `run`.

    Raises TrainingError when there is none or the data are not there, ShardError for a broken shard.
    """
    finished = read_run(run)
    vae = video_vae(finished.plan, None)
    vae.load_state_dict(finished.averaged_weights)
    train, _ = cached_splits(dataset, run, cache)
    chosen = [train[int(index)] for index in np.linspace(0, len(train) - 1, min(_CLIPS, len(train)))]
    set_statistics(vae, chosen)
    card = ModelCard(
        title=f"Video VAE of {finished.plan.preset}",
        purpose=_PURPOSE.format(preset=finished.plan.preset),
        data=_DATA.format(clips=len(train), measured=len(chosen)),
        limits=_LIMITS,
    )
    write_part(vae, out, finished, card)


@torch.no_grad()
def set_statistics(vae: CausalVideoVAE, clips: Sequence[CachedClip]) -> None:
    """Sets mean and standard deviation of each latent channel from the first frames of these clips."""
    vae.set_latent_statistics(torch.zeros_like(vae.latents_mean), torch.ones_like(vae.latents_std))
    frames = [torch.from_numpy(np.array(clip.frames_FHW3[:_FRAMES])) for clip in clips]
    latents = torch.cat([vae.encode(as_video(one[None], vae.device)).flatten(0, 3) for one in frames])
    vae.set_latent_statistics(latents.mean(dim=0), latents.std(dim=0))
