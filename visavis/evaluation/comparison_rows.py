"""The rows of the comparison: what each one is made by, whether it was retrained, and what is missing.

F frames without the portrait
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch

from visavis.evaluation.errors import EvaluationError
from visavis.evaluation.talkers import PipelineTalker, Talker, talk
from visavis.evaluation.tested_part import tested_vae, weights_fingerprint
from visavis.evaluation.video_vae import as_frames, as_video, decode_in_chunks
from visavis.models import checkpoints
from visavis.models.a2v_dit import A2VTransformer
from visavis.models.id_context import Cache
from visavis.models.pipeline import RestPipeline
from visavis.models.speech_ae import SpeechAE
from visavis.models.video_autoencoder import VideoAutoencoder
from visavis.training.data.clips import Clip

Pictures = npt.NDArray[np.uint8]
RowName = Literal[
    "truth",
    "vae",
    "read",
    "rest",
    "no_sink",
    "no_context",
    "no_asd",
    "no_contrastive",
    "no_smoothness",
    "fast",
]

TITLES: Final[Mapping[RowName, str]] = {
    "truth": "ground truth",
    "vae": "VAE reconstruction",
    "read": "READ (teacher)",
    "rest": "REST",
    "no_sink": "REST without sink",
    "no_context": "REST without context",
    "no_asd": "REST without ASD",
    "no_contrastive": "REST without the contrastive term",
    "no_smoothness": "REST without the smoothness term",
    "fast": "REST, fast preset",
}
# Rows that need weights of their own: a folder with `transformer`, and perhaps `speech_ae`.
ABLATED: Final[tuple[RowName, ...]] = ("no_asd", "no_contrastive", "no_smoothness")
# Rows whose cache lacks something; without weights of their own, only inference does without it.
_CACHES: Final[Mapping[RowName, Cache]] = {"no_sink": "no_sink", "no_context": "no_context"}
RETRAINABLE: Final = (*ABLATED, *_CACHES)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `make` gives [F, H, W, 3] for a clip and a seed, None where something is missing."""

    name: RowName
    # in words: retrained, inference alone, ...
    training: str
    # Of everything that decides what is made; empty where nothing is.
    fingerprint: str
    make: Callable[[Clip, int], Pictures] | None
    # False: every seed gives the same
    seeded: bool = True
    why_missing: str = ""

    def without_maker(self) -> Row:
        """For the table: the model that makes it need not stay in memory."""
        return replace(self, make=None)


@dataclass(frozen=True, slots=True)
class RowSources:
    """`model`: preset or model folder. `retrained`: folders by row. `random_allowed`: weights that are noise count."""

    model: str
    retrained: Mapping[str, Path]
    random_allowed: bool


def comparison_rows(sources: RowSources) -> Iterator[Row]:
    """One after the other, each made when it is its turn: a model is in memory once.

    Raises EvaluationError when there is no such model, or a folder for a row that takes none.
    """
    unknown = set(sources.retrained) - set(RETRAINABLE)
    if unknown:
        raise EvaluationError(f"no weights are taken for {', '.join(sorted(unknown))}: choose {', '.join(RETRAINABLE)}")
    yield Row("truth", "", "truth", lambda clip, seed: clip.frames_FHW3[1:], seeded=False)
    yield _row("vae", "", sources, lambda: _vae(sources))
    yield _row("read", "the teacher", sources, lambda: _pipeline(_read(sources), None))
    yield _row("rest", "student, ASD", sources, lambda: _pipeline(_rest(sources), None))
    for name, cache in _CACHES.items():
        own = name in sources.retrained
        training = "retrained without it" if own else "not retrained: inference alone goes without"
        yield _row(name, training, sources, partial(_ablated, sources, name, cache))
    for name in ABLATED:
        yield _row(name, "retrained", sources, partial(_ablated, sources, name, None))
    yield _row("fast", "distilled from REST", sources, lambda: _pipeline(_rest(sources, "fast"), None))


class _Missing(Exception):
    """What a row needs is not there; says what to do."""


@dataclass(frozen=True, slots=True)
class _Maker:
    make: Callable[[Clip, int], Pictures]
    fingerprint: str
    seeded: bool = True


def _row(name: RowName, training: str, sources: RowSources, load: Callable[[], _Maker]) -> Row:
    try:
        maker = load()
    except _Missing as missing:
        return Row(name, training, "", None, why_missing=str(missing))
    except (OSError, ValueError) as error:
        return Row(name, training, "", None, why_missing=f"{sources.model}: {error}")
    return Row(name, training, maker.fingerprint, maker.make, maker.seeded)


def _pipeline(pipeline: Any, cache: Cache | None) -> _Maker:
    sampling = pipeline.sampling if cache is None else replace(pipeline.sampling, cache=cache)
    talker = PipelineTalker(pipeline, sampling)
    return _Maker(lambda clip, seed: generate(talker, clip, seed), _fingerprint(pipeline, sampling))


def generate(talker: Talker, clip: Clip, seed: int) -> Pictures:
    """A clip's portrait and speech, [F, H, W, 3]."""
    return talk(talker, clip.frames_FHW3[0], clip.samples_S, seed)


def _ablated(sources: RowSources, name: RowName, cache: Cache | None) -> _Maker:
    return _pipeline(_of(sources, name), cache)


def _rest(sources: RowSources, sampling: str = "standard") -> RestPipeline:
    pipeline = RestPipeline.from_preset(sources.model, sampling=sampling)
    _check(pipeline, sources)
    return pipeline


def _read(sources: RowSources) -> Any:
    from visavis.models.read_pipeline import ReadPipeline

    pipeline = ReadPipeline.from_preset(sources.model)
    _check(pipeline, sources)
    return pipeline


def _of(sources: RowSources, name: RowName) -> RestPipeline:
    """REST with a row's own transformer, and the SpeechAE that learnt with it, if they are there."""
    rest = _rest(sources)
    folder = sources.retrained.get(name)
    if folder is None:
        if name in ABLATED:
            raise _Missing(f"needs weights of its own: --weights {name}=FOLDER")
        return rest
    transformer = checkpoints.placed(_part(A2VTransformer, folder / "transformer"), rest.device, rest.transformer.dtype)
    speech_ae = rest.speech_ae
    if (folder / "speech_ae").is_dir():
        speech_ae = checkpoints.placed(_part(SpeechAE, folder / "speech_ae"), rest.device, torch.float32)
    kept = ("model_name", "picture_size", "steps", "guidance_scale", "cache_source")
    settings = {name: rest.config[name] for name in kept}
    return RestPipeline(transformer, rest.vae, speech_ae, rest.whisper, rest.scheduler, **settings)


def _part(kind: Any, folder: Path) -> Any:
    return kind.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True, low_cpu_mem_usage=False)


def _check(pipeline: Any, sources: RowSources) -> None:
    if pipeline.config["random_weights"] and not sources.random_allowed:
        raise _Missing(f"the weights of {sources.model} are random: train and export them first")


def _vae(sources: RowSources) -> _Maker:
    if (
        checkpoints.has_random_weights(*checkpoints.read_settings(sources.model), ("vae",))
        and not sources.random_allowed
    ):
        raise _Missing(f"the VAE of {sources.model} has random weights: train and export it first")
    vae = tested_vae(sources.model).module
    return _Maker(lambda clip, seed: _rebuilt(vae, clip), weights_fingerprint(vae), seeded=False)


@torch.no_grad()
def _rebuilt(vae: VideoAutoencoder, clip: Clip) -> Pictures:
    video = as_video(clip.frames_FHW3).to(vae.device, vae.dtype)
    return as_frames(decode_in_chunks(vae, vae.encode(video)).float().cpu())[1:]


def _fingerprint(pipeline: Any, sampling: Any) -> str:
    digest = hashlib.sha256(f"{type(pipeline).__name__} {sampling}".encode())
    for part in (pipeline.transformer, pipeline.vae, pipeline.speech_ae):
        digest.update(weights_fingerprint(part).encode())
    return digest.hexdigest()
