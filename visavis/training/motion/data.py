"""What a motion training learns from: a data set in latent space, and the run's record of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch

from visavis.evaluation.tested_part import weights_fingerprint
from visavis.models.checkpoints import load_whisper, placed, resolve_device
from visavis.models.presets import Preset, load_preset
from visavis.models.video_autoencoder import VideoAutoencoder
from visavis.training.errors import TrainingError
from visavis.training.motion.clips import MotionClips
from visavis.training.motion.latents_cache import cache_latents, latents_path
from visavis.training.motion.weights import read_vae
from visavis.training.plan import Plan
from visavis.training.speech.recordings import ShardSpeech
from visavis.training.speech.states_cache import StatesCacheError, cache_states
from visavis.training.speech.training import shard_speech, speech_cache

_RECORD_FILE: Final = "motion.json"
_DECODING_THREADS: Final = len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class MotionData:
    """Clips to learn from, clips of people who are held out, and what makes pictures of latents."""

    preset: Preset
    train: MotionClips
    held_out: MotionClips
    vae: VideoAutoencoder
    # Where the people are whom samples show.
    held_out_shard: Path


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run learns from, kept in its folder: it keeps to that."""

    # SHA-256 (hex) over the weights of the VAE whose latents it learns
    vae: str
    # of each split the files of the cache
    latents: Mapping[str, Sequence[str]]
    # of the training split
    clips: int
    people: int


def motion_data(
    plan: Plan,
    dataset: Path,
    run: Path,
    cache: Path | None,
    vae_folder: Path | None,
    announce: Callable[[str], None] = print,
) -> MotionData:
    """What a run learns from. Errors as `teacher_task`; `announce` is told of each shard that takes a while."""
    preset = load_preset(plan.preset)
    vae = placed(read_vae(preset, vae_folder), resolve_device("auto"), torch.float32)
    fingerprint = weights_fingerprint(vae)
    record = read_record(run) if (run / _RECORD_FILE).is_file() else None
    if record is not None and record.vae != fingerprint:
        raise TrainingError(f"{run} began with another VAE: give that one as --vae, or choose another run folder")
    shards: dict[str, list[ShardSpeech]] = {split: shard_speech(dataset, split) for split in ("train", "test")}
    if record is not None:
        shards = {split: _recorded(found, record.latents[split], dataset) for split, found in shards.items()}
    mirrored = bool(plan.task_options.get("mirrored", False))
    folder = (cache or dataset.with_name(f"{dataset.name}.cache")) / "video_latents"
    latents = {
        split: _cache_all(found, folder, vae, fingerprint, mirrored and split == "train", announce)
        for split, found in shards.items()
    }
    states = _cache_speech(preset, shards, speech_cache(dataset, cache), mirrored)
    clips = {split: MotionClips(latents[split], states[split]) for split in shards}
    # What it is for now are samples, and those are drawn by one process.
    vae = placed(vae, torch.device("cpu"), torch.float32)
    data = MotionData(preset, clips["train"], clips["test"], vae, shards["test"][0].path)
    _check_people(data)
    names = {split: [path.name for path in paths] for split, paths in latents.items()}
    if record is not None and names != record.latents:
        raise TrainingError(f"{dataset} is not what {run} began with: put the old shards back, or begin anew")
    _keep_record(run, RunRecord(fingerprint, names, len(data.train), len(data.train.identities)))
    return data


def read_record(run: Path) -> RunRecord:
    """What a run learns from. Raises TrainingError where it is no run of a teacher or a student."""
    try:
        table: dict[str, Any] = json.loads((run / _RECORD_FILE).read_text())
        return RunRecord(**table)
    except (OSError, TypeError, ValueError) as error:
        raise TrainingError(f"{run} holds no {_RECORD_FILE} of a motion training: {error}") from error


def _keep_record(run: Path, record: RunRecord) -> None:
    run.mkdir(parents=True, exist_ok=True)
    partial = run / f"{_RECORD_FILE}.partial"
    partial.write_text(json.dumps(asdict(record), indent=1))
    partial.replace(run / _RECORD_FILE)


def _recorded(found: Sequence[ShardSpeech], names: Sequence[str], dataset: Path) -> list[ShardSpeech]:
    """Those shards that a run began with; more may have come since."""
    kept = [shard for shard in found if any(name.startswith(f"{shard.name}-") for name in names)]
    missing = [name for name in names if not any(name.startswith(f"{shard.name}-") for shard in kept)]
    if missing:
        raise TrainingError(f"shards are missing in {dataset}: put them back ({', '.join(missing)}), or begin anew")
    return kept


def _cache_all(
    shards: Sequence[ShardSpeech],
    folder: Path,
    vae: VideoAutoencoder,
    fingerprint: str,
    mirrored: bool,
    announce: Callable[[str], None],
) -> list[Path]:
    """All clips, then all of them mirrored if that is wanted."""

    def cache(wanted: tuple[ShardSpeech, bool]) -> Path:
        shard, exchanged = wanted
        if not latents_path(shard, folder, fingerprint, mirrored=exchanged).is_file():
            announce(f"encoding the clips of {shard.name}{', mirrored' if exchanged else ''}")
        return cache_latents(shard, folder, vae, fingerprint, mirrored=exchanged)

    wanted = [(shard, exchanged) for exchanged in ((False, True) if mirrored else (False,)) for shard in shards]
    # A GPU encodes faster than one thread decodes H.264.
    with ThreadPoolExecutor(1 if vae.device.type == "cpu" else _DECODING_THREADS) as threads:
        return list(threads.map(cache, wanted))


def _cache_speech(
    preset: Preset, shards: Mapping[str, Sequence[ShardSpeech]], folder: Path, mirrored: bool
) -> dict[str, list[Path]]:
    whisper = placed(load_whisper(preset, None), resolve_device("auto"), torch.float32)
    try:
        paths = {split: [cache_states(shard, folder, whisper) for shard in found] for split, found in shards.items()}
    except StatesCacheError as error:
        raise TrainingError(str(error)) from error
    # Speech is the same for both faces.
    return {split: found * 2 if mirrored and split == "train" else found for split, found in paths.items()}


def _check_people(data: MotionData) -> None:
    both = data.train.identities & data.held_out.identities
    if both:
        raise TrainingError(
            f"{len(both)} people are in both splits, so nobody is held out: {', '.join(sorted(both)[:5])}"
        )
