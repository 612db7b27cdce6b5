"""Sets up the training of a video VAE: the network, its weights and the clips."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

from visavis.models.presets import load_preset
from visavis.models.video_vae import CausalVideoVAE
from visavis.training.errors import TrainingError
from visavis.training.frame_cache import CachedClip, cached_clips, shard_names
from visavis.training.plan import Plan
from visavis.training.read_part import read_part
from visavis.training.video_vae_task import VideoVAETask


def video_vae_task(plan: Plan, dataset: Path, run: Path, cache: Path | None, weights: Path | None) -> VideoVAETask:
    """The task of `plan`. `weights` is a VAE's folder to start from; None: seeded random weights.

    `cache` holds the decoded pictures, None: DATASET.cache. Raises TrainingError for missing data, a preset with
    another VAE and weights that do not fit, ShardError for a broken shard.
    """
    return VideoVAETask(video_vae(plan, weights), plan, *cached_splits(dataset, run, cache))


def cached_splits(dataset: Path, run: Path, cache: Path | None) -> tuple[list[CachedClip], list[CachedClip]]:
    """The clips of training and test that a run trains with. Errors as above."""
    shards = _shards_of_run(dataset, run)
    folder = cache or dataset.with_name(f"{dataset.name}.cache")
    train, test = (cached_clips(dataset, folder, split, shards[split]) for split in ("train", "test"))
    return train, test


def _shards_of_run(dataset: Path, run: Path) -> dict[str, list[str]]:
    """A run keeps to the shards that it began with, so that it draws the same clips when it is resumed."""
    path = run / "shards.json"
    if path.is_file():
        shards: dict[str, list[str]] = json.loads(path.read_text())
        return shards
    shards = {split: shard_names(dataset, split) for split in ("train", "test")}
    run.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(shards, indent=1))
    partial.replace(path)
    return shards


def video_vae(plan: Plan, weights: Path | None) -> CausalVideoVAE:
    """The network of the plan's preset, with these weights or seeded random ones."""
    preset = load_preset(plan.preset)
    if preset.vae_kind != "causal":
        raise TrainingError(f"the preset {plan.preset} has another kind of VAE: there is no training for it")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        vae: CausalVideoVAE = CausalVideoVAE(**preset.vae)
    if weights is not None:
        vae.load_state_dict(read_part(CausalVideoVAE, weights, "a video VAE").state_dict())
    return vae
