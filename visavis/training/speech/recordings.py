"""Speech to learn from: that of rendered clips, and more of the same kind for which no face was rendered.

S samples at 16 kHz, F = 1 + S / 640 frames
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from visavis.training.data.clip_files import ARRAYS, SPEECH, ClipFileError, check_members, decode_arrays, decode_speech
from visavis.training.data.clip_plan import Split, plan_clip, split_of
from visavis.training.data.shards import ShardError, read_members
from visavis.training.data.take import SpeaksSentences, perform
from visavis.training.data.voices import Voice

JAW_ACTION = "jawOpen"
SPOKEN_FRAMES = 121
# Changes with what a spoken clip sounds like.
_SPOKEN_FORMAT = 1
# Only the eyes' curves depend on it, and nobody sees them.
_EYE_WIDTH = 0.0

SpeakerFactory = Callable[[], AbstractContextManager[SpeaksSentences]]


@dataclass(frozen=True, slots=True)
class Recording:
    """One clip's speech and how far the jaw is open (0 to 1; NaN in footage) in each frame.

    `voice` is empty for silence.
    """

    key: str
    voice: str
    samples_S: npt.NDArray[np.float32]
    jaw_F: npt.NDArray[np.float32]


class RecordingBatch(Protocol):
    """Recordings that are cached together. Those of another `identity` (hexadecimal) are others."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str: ...

    def recordings(self) -> Iterator[Recording]: ...


@dataclass(frozen=True, slots=True)
class ShardSpeech:
    """The speech and the jaw of a rendered shard; its videos are not decoded."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def identity(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def recordings(self) -> Iterator[Recording]:
        """Raises ShardError for a broken shard."""
        for key, members in read_members(self.path):
            try:
                record, arrays = check_members(members), decode_arrays(members[ARRAYS])
                jaw_F = _jaw(arrays["curves"], record["actions"])
                yield Recording(key, record["plan"]["voice"], decode_speech(members[SPEECH]), jaw_F)
            except (ClipFileError, KeyError, ValueError) as error:
                raise ShardError(f"the shard {self.path.name} is broken at clip {key}: {error}") from error


def _jaw(curves_FA: npt.NDArray[np.float32], actions: Sequence[str]) -> npt.NDArray[np.float32]:
    if JAW_ACTION in actions:
        return np.asarray(curves_FA[:, actions.index(JAW_ACTION)], dtype=np.float32)
    return np.full(len(curves_FA), np.nan, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class SpokenBatch:
    """Sound and jaw of clips that nobody rendered: those of a data set of another seed, `size` of them a batch."""

    seed: int
    split: Split
    number: int
    size: int
    voices: tuple[Voice, ...]
    speaker: SpeakerFactory

    @property
    def name(self) -> str:
        return f"spoken-{self.split}-{self.number:05d}"

    @property
    def identity(self) -> str:
        parts = [_SPOKEN_FORMAT, self.seed, self.split, self.number, self.size, [asdict(item) for item in self.voices]]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def recordings(self) -> Iterator[Recording]:
        """Raises VoiceError when a voice fails."""
        indices = (index for index in count() if split_of(index) == self.split)
        with self.speaker() as speaker:
            for index in islice(indices, self.number * self.size, (self.number + 1) * self.size):
                plan = plan_clip(self.seed, index, self.voices)
                take = perform(plan, self.voices, speaker, SPOKEN_FRAMES, _EYE_WIDTH)
                jaw_F = take.curves[JAW_ACTION].astype(np.float32)
                yield Recording(plan.key, plan.voice, take.samples_S, jaw_F)
