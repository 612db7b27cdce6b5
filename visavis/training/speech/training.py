"""Sets up the training of a SpeechAE: the network, its weights, and the speech with Whisper's states of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch

from visavis.models.checkpoints import load_whisper
from visavis.models.presets import Preset, load_preset
from visavis.models.speech_ae import SpeechAE
from visavis.training.data.voice import VoiceError
from visavis.training.data.voices import ENGINES, Speaker, require_engines
from visavis.training.errors import TrainingError
from visavis.training.plan import Plan
from visavis.training.read_part import read_part
from visavis.training.speech.heard_voices import heard_voices
from visavis.training.speech.recordings import RecordingBatch, ShardSpeech, SpokenBatch
from visavis.training.speech.states_cache import CachedStates, StatesCacheError, cache_states
from visavis.training.speech.task import SpeechAETask

_SPOKEN_CLIPS = 48
_SPEECH_FILE = "speech.json"


def speech_ae_task(plan: Plan, dataset: Path, run: Path, cache: Path | None, weights: Path | None) -> SpeechAETask:
    """The task of `plan`; `weights` is a SpeechAE's folder to start from.

    What is not cached yet is computed first (9 s for a shard on an idle core). A run keeps to the speech that it began
    with. Raises TrainingError for missing data or voices and for weights that do not fit, ShardError for a broken
    shard.
    """
    states = states_of_run(plan, dataset, run, cache)
    return SpeechAETask(speech_ae_network(plan, weights), states["train"], states["test"])


def states_of_run(plan: Plan, dataset: Path, run: Path, cache: Path | None) -> dict[str, CachedStates]:
    """The speech that a run began with, by split; of a new run, all that the data set and the plan have."""
    folder = speech_cache(dataset, cache)
    paths = _paths_of_run(run, folder) or _cache_speech(plan, load_preset(plan.preset), dataset, folder)
    try:
        states = {split: CachedStates(part) for split, part in paths.items()}
    except StatesCacheError as error:
        raise TrainingError(str(error)) from error
    _keep_paths(run, folder, paths)
    return states


def speech_cache(dataset: Path, cache: Path | None) -> Path:
    """Where the states of a data set's speech are kept: in `cache`, or beside the data set."""
    return (cache or dataset.with_name(f"{dataset.name}.cache")) / "speech_states"


def shard_speech(dataset: Path, split: str) -> list[ShardSpeech]:
    """The speech of a split's shards. Raises TrainingError when there are none."""
    shards = sorted((dataset / split).glob("*.tar"))
    if not shards:
        raise TrainingError(f"no {split} shards in {dataset}: render them with `visavis data render --out {dataset}`")
    return [ShardSpeech(path) for path in shards]


def _cache_speech(plan: Plan, preset: Preset, dataset: Path, folder: Path) -> dict[str, list[Path]]:
    whisper = load_whisper(preset, None)
    batches: dict[str, list[RecordingBatch]] = {
        split: list(shard_speech(dataset, split)) for split in ("train", "test")
    }
    batches["train"] += _spoken(plan)
    try:
        return {split: [cache_states(batch, folder, whisper) for batch in part] for split, part in batches.items()}
    except (StatesCacheError, VoiceError) as error:
        raise TrainingError(str(error)) from error


def _spoken(plan: Plan) -> Iterator[SpokenBatch]:
    """Speech beyond the data set's, if the plan wants any: `spoken_batches` of 48 clips, drawn from `spoken_seed`."""
    unknown = set(plan.task_options) - {"spoken_batches", "spoken_seed"}
    if unknown:
        raise TrainingError(f"unknown task_options of a SpeechAE: {', '.join(sorted(unknown))}")
    wanted = int(plan.task_options.get("spoken_batches", 0))
    if wanted:
        try:
            require_engines(ENGINES)
        except VoiceError as error:
            raise TrainingError(str(error)) from error
    for number in range(wanted):
        yield SpokenBatch(
            int(plan.task_options["spoken_seed"]), "train", number, _SPOKEN_CLIPS, heard_voices(), Speaker
        )


def _paths_of_run(run: Path, folder: Path) -> dict[str, list[Path]] | None:
    path = run / _SPEECH_FILE
    if not path.is_file():
        return None
    names: dict[str, list[str]] = json.loads(path.read_text())
    return {split: [folder / name for name in part] for split, part in names.items()}


def _keep_paths(run: Path, folder: Path, paths: dict[str, list[Path]]) -> None:
    run.mkdir(parents=True, exist_ok=True)
    names = {split: [path.relative_to(folder).as_posix() for path in part] for split, part in paths.items()}
    partial = run / f"{_SPEECH_FILE}.partial"
    partial.write_text(json.dumps(names, indent=1))
    partial.replace(run / _SPEECH_FILE)


def speech_ae_network(plan: Plan, weights: Path | None) -> SpeechAE:
    """The network of the plan's preset: from a SpeechAE's folder, or with seeded random weights."""
    if weights is not None:
        loaded: SpeechAE = read_part(SpeechAE, weights, "a SpeechAE")
        return loaded
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        speech_ae: SpeechAE = SpeechAE(**load_preset(plan.preset).speech_ae)
    return speech_ae
