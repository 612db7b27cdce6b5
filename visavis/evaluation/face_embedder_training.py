"""Sets up the training of the face embedder, and writes what ships of it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from visavis.evaluation.crop_cache import cropped_clips
from visavis.evaluation.face_embedder import FaceEmbedder
from visavis.evaluation.face_embedder_task import FaceEmbedderTask
from visavis.evaluation.judge_network import judge_network
from visavis.training.model_folder import ModelCard, read_run, write_part
from visavis.training.plan import Plan

_PURPOSE: Final = """\
Says whether two pictures show the same face: a vector of length 1 for each, near each other for the same person. For
the measures `identity_cosine`, `own_portrait_nearest` and `face_embedding_frechet` of visavis (docs/evaluation.md).
It is for judging rendered people, not for recognising anybody."""
_DATA: Final = """\
Faces of the training people of `visavis data render` (docs/data.md), from the brows to the chin, lit and tinted at
random. The people of the test split, which it judges, were not among them."""
_LIMITS: Final = """\
It knows rendered faces of a few hundred people. It takes the face alone, without hair and ears, so people who differ by
these only are the same to it. No real face was seen; do not use it on any."""
_EMBEDDER: Final = "embedder."


def face_embedder_task(
    plan: Plan, dataset: Path, run: Path, cache: Path | None, weights: Path | None
) -> FaceEmbedderTask:
    """The task of `plan`; `task_options` are arguments of the network, `weights` a folder to start from.

    Raises TrainingError for missing data, options and weights that do not fit, ShardError for a broken shard.
    """
    clips = [cropped_clips(dataset, cache, split) for split in ("train", "test")]
    return FaceEmbedderTask(judge_network(FaceEmbedder, plan, weights), *clips)


def export_face_embedder(run: Path, out: Path, dataset: Path, cache: Path | None) -> None:
    """Writes the folder `out` from the last checkpoint in `run`. Raises TrainingError when there is none."""
    finished = read_run(run)
    network = judge_network(FaceEmbedder, finished.plan, None)
    weights = finished.averaged_weights.items()
    network.load_state_dict(
        {name.removeprefix(_EMBEDDER): value for name, value in weights if name.startswith(_EMBEDDER)}
    )
    write_part(network, out, finished, ModelCard("Face embedder of visavis", _PURPOSE, _DATA, _LIMITS))
