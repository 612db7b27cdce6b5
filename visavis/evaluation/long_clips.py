"""Renders long clips of the test split: the same people and voices who speak longer than a clip of 121 frames.

Clip n has the person, the light and the voice of test clip n of `visavis data render`, whose sentences are followed by
those of further test clips with that voice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Final

from visavis.contract import CHUNK_FRAMES, FRAME_RATE
from visavis.evaluation.errors import EvaluationError
from visavis.training.data.clip_plan import ClipPlan, plan_clip, split_of
from visavis.training.data.clips import clip_to_files
from visavis.training.data.dataset_folder import add_shard, claim_folder
from visavis.training.data.rasteriser import compile_kernels
from visavis.training.data.shards import ClipFiles
from visavis.training.data.studio import FORMAT, ClipSettings, Studio
from visavis.training.data.take import SpeaksSentences
from visavis.training.data.voices import Voice, voices_of

# Shorter than any sentence lasts, so that there is speech to the end.
_SENTENCE_SECONDS: Final = 1.5
_SHARD: Final = "test/test-00000.tar"

SpeakerFactory = Callable[[], AbstractContextManager[SpeaksSentences]]


@dataclass(frozen=True, slots=True)
class LongClipSettings:
    """`frames` with the portrait: 1 more than whole chunks have."""

    clips: int
    frames: int
    seed: int
    engines: tuple[str, ...]


def render_long_clips(assets: Path, folder: Path, settings: LongClipSettings, speakers: SpeakerFactory) -> Path:
    """Writes the folder's one shard, unless it is there. Raises EvaluationError for impossible settings, else as
    `visavis.training.data.dataset.render_dataset`.
    """
    if settings.clips < 1 or settings.frames % CHUNK_FRAMES != 1 or settings.frames <= CHUNK_FRAMES:
        raise EvaluationError(f"long clips are at least 1, of 1 + whole chunks ({CHUNK_FRAMES} frames) each")
    made_from = {**asdict(settings), "engines": list(settings.engines)}
    claim_folder(folder, {"format": FORMAT, "kind": "long clips", **made_from})
    path = folder / _SHARD
    if not path.is_file():
        compile_kernels()
        with speakers() as speaker:
            clip_settings = ClipSettings(settings.seed, settings.engines, settings.frames)
            add_shard(path, _rendered(Studio(assets, clip_settings, speaker), settings))
    return path


def long_plans(settings: LongClipSettings, voices: Sequence[Voice]) -> list[ClipPlan]:
    """The plans of test clips in which somebody speaks, with sentences enough."""
    wanted = int(settings.frames / FRAME_RATE / _SENTENCE_SECONDS) + 1
    spoken = (plan_clip(settings.seed, index, voices) for index in count() if split_of(index) == "test")
    chosen = list(islice((plan for plan in spoken if plan.voice), settings.clips))
    return [_longer(plan, wanted, voices) for plan in chosen]


def _longer(plan: ClipPlan, wanted: int, voices: Sequence[Voice]) -> ClipPlan:
    sentences, pauses = list(plan.sentences), list(plan.pauses)
    for index in count(plan.index + 1):
        if len(sentences) >= wanted:
            break
        other = plan_clip(plan.seed, index, voices)
        if other.split == plan.split and other.voice == plan.voice:
            sentences += other.sentences
            pauses += other.pauses
    return replace(plan, sentences=tuple(sentences), pauses=tuple(pauses))


def _rendered(studio: Studio, settings: LongClipSettings) -> Iterator[ClipFiles]:
    for plan in long_plans(settings, voices_of(settings.engines)):
        yield clip_to_files(studio.film(plan))
