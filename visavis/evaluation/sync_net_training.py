"""Sets up the training of our SyncNet, and writes what ships of it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from visavis.evaluation.crop_cache import cropped_clips
from visavis.evaluation.judge_network import judge_network
from visavis.evaluation.sync_net import SyncNet
from visavis.evaluation.sync_net_task import SyncNetTask
from visavis.training.model_folder import ModelCard, read_run, write_part
from visavis.training.plan import Plan

_PURPOSE: Final = """\
Judges whether a mouth belongs to speech: five frames of a mouth and 0.2 s of sound become vectors that lie near each
other where they belong together. For the measures `own_sync_confidence` and `own_sync_distance` of visavis
(docs/evaluation.md); its scores cannot be compared with SyncNet's."""
_DATA: Final = "Clips of synthetic people who speak (`visavis data render`, docs/data.md), training split."
_LIMITS: Final = """\
It has seen rendered faces and heard synthetic voices only. A model that is trained on the same people moves its lips
by the same rules; how people really speak it does not know."""


def sync_net_task(plan: Plan, dataset: Path, run: Path, cache: Path | None, weights: Path | None) -> SyncNetTask:
    """The task of `plan`; `task_options` are arguments of the network, `weights` a folder to start from.

    Raises TrainingError for missing data, options and weights that do not fit, ShardError for a broken shard.
    """
    clips = [cropped_clips(dataset, cache, split) for split in ("train", "test")]
    return SyncNetTask(judge_network(SyncNet, plan, weights), *clips)


def export_sync_net(run: Path, out: Path, dataset: Path, cache: Path | None) -> None:
    """Writes the folder `out` from the last checkpoint in `run`. Raises TrainingError when there is none."""
    finished = read_run(run)
    network = judge_network(SyncNet, finished.plan, None)
    network.load_state_dict(finished.averaged_weights)
    write_part(network, out, finished, ModelCard("SyncNet of visavis", _PURPOSE, _DATA, _LIMITS))
