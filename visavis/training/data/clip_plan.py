"""What a clip shows and says, as a pure function of the data set's seed and the clip's number.

Training and test people and voices are apart for all seeds: people by their number, voices by their name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from visavis.training.data.sentences import draw_sentence
from visavis.training.data.voices import Voice

Split = Literal["train", "test"]

TRAINING_IDENTITIES = 400
TEST_IDENTITIES = 48
# One clip in twelve is a test clip.
_TEST_EVERY, _FIRST_TEST = 12, 5
_SILENT_SHARE = 0.04
# piper sounds like a person, so most clips have its voice if it is among the engines.
_ENGINE_WEIGHTS = {"piper": 0.45, "flite": 0.2, "espeak": 0.35}
_LONGEST_SPEECH_SECONDS = 4.2
_SECONDS_A_SENTENCE = 2.4


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """One clip before it is rendered. `voice` is empty for a clip held in silence."""

    seed: int
    index: int
    split: Split
    identity: int
    voice: str
    sentences: tuple[str, ...]
    # silence before each sentence, seconds
    pauses: tuple[float, ...]
    tempo: float
    clarity: float
    # root mean square of the room's noise, full scale is 1
    noise: float

    @property
    def key(self) -> str:
        """The clip's name in its shard."""
        return f"{self.index:08d}"


def split_of(index: int) -> Split:
    """Which split a clip belongs to."""
    return "test" if index % _TEST_EVERY == _FIRST_TEST else "train"


def plan_clip(seed: int, index: int, voices: Sequence[Voice]) -> ClipPlan:
    """The plan of clip `index`. Raises ValueError when no voice is left for its split."""
    random = np.random.default_rng([0x636C6970, seed, index])
    split = split_of(index)
    tempo, clarity = float(random.uniform(0.85, 1.2)), float(random.uniform(0.8, 1.15))
    noise = float(10 ** random.uniform(-4.5, -2.5)) if random.random() < 0.4 else 0.0
    silent = bool(random.random() < _SILENT_SHARE)
    voice = _draw_voice(random, voices, split)
    sentences = () if silent else _draw_sentences(random, voice, tempo)
    return ClipPlan(
        seed=seed,
        index=index,
        split=split,
        identity=_identity(seed, index),
        voice="" if silent else voice.name,
        sentences=sentences,
        pauses=tuple(float(random.uniform(0.1, 0.6)) for _ in sentences),
        tempo=tempo,
        clarity=clarity,
        noise=noise,
    )


def _identity(seed: int, index: int) -> int:
    """Goes through all people of the split in a shuffled order before one comes again."""
    split = split_of(index)
    tests_before = (index + _TEST_EVERY - 1 - _FIRST_TEST) // _TEST_EVERY
    ordinal, first, count = (
        (index - tests_before, 0, TRAINING_IDENTITIES)
        if split == "train"
        else (tests_before, TRAINING_IDENTITIES, TEST_IDENTITIES)
    )
    order = np.random.default_rng([0x6F726472, seed, ordinal // count, first]).permutation(count)
    return first + int(order[ordinal % count])


def _draw_voice(random: np.random.Generator, voices: Sequence[Voice], split: Split) -> Voice:
    suited = [voice for voice in voices if voice.test == (split == "test")]
    if not suited:
        raise ValueError(f"none of the chosen voice engines has a voice for the {split} split")
    engines = sorted({voice.engine for voice in suited})
    weights = np.array([_ENGINE_WEIGHTS[engine] for engine in engines])
    engine = str(random.choice(engines, p=weights / weights.sum()))
    of_engine = [voice for voice in suited if voice.engine == engine]
    return of_engine[int(random.integers(len(of_engine)))]


def _draw_sentences(random: np.random.Generator, voice: Voice, tempo: float) -> tuple[str, ...]:
    """Enough to fill the clip, or, in three of ten clips, one sentence and then silence."""
    wanted = 0.0 if random.random() < 0.3 else _LONGEST_SPEECH_SECONDS * tempo
    sentences = [draw_sentence(random, voice.language)]
    while len(sentences) * _SECONDS_A_SENTENCE < wanted:
        sentences.append(draw_sentence(random, voice.language))
    return tuple(sentences)
