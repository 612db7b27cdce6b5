"""What the motion trainings learn from: each clip's video latents beside Whisper's states of its speech."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from torch import Tensor

from visavis.training.errors import TrainingError
from visavis.training.motion.latents_cache import CachedLatents, LatentClip
from visavis.training.speech.states_cache import CachedStates, StatesCacheError


@dataclass(frozen=True, slots=True)
class MotionClip:
    """`picture` has the clip's latents; `states_NPX` (float16) Whisper's of its speech, entry 0 the silence before it.

    N chunks of 24 frames and the silence, P = 56 states a chunk, X speech feature channels
    """

    picture: LatentClip
    states_NPX: Tensor

    @property
    def chunks(self) -> int:
        """How many chunks the clip has."""
        return len(self.states_NPX) - 1


# In memory once they were read, 1.7 MB each: a GPU takes a thousand samples a second.
_KEPT_CLIPS: Final = 2_048


class MotionClips:
    """The clips of a split; each is read from disk when it is asked for, and the last ones are kept."""

    def __init__(self, latents: Sequence[Path], states: Sequence[Path]) -> None:
        """Latents and states of the same shards in the same order. Raises TrainingError when they are not."""
        self._latents = CachedLatents(latents)
        try:
            self._states = CachedStates(states)
        except StatesCacheError as error:
            raise TrainingError(str(error)) from error
        if self._latents.keys != self._states.keys:
            raise TrainingError("the cached video latents and speech states are of different clips: remove the cache")
        self._kept = lru_cache(maxsize=_KEPT_CLIPS)(self._read)

    def __len__(self) -> int:
        return len(self._latents)

    def __getitem__(self, index: int) -> MotionClip:
        return self._kept(index)

    def _read(self, index: int) -> MotionClip:
        return MotionClip(self._latents[index], self._states[index].states_NPLD.flatten(2))

    def find(self, key: str) -> MotionClip:
        """The clip of this name. Raises ValueError when it is not among these."""
        return self[self._latents.keys.index(key)]

    @property
    def identities(self) -> set[str]:
        """Who is in the clips."""
        return self._latents.identities

    def spread(self, wanted: int) -> list[MotionClip]:
        """Up to `wanted` clips, evenly over all."""
        chosen = np.linspace(0, len(self) - 1, min(len(self), wanted)).round().astype(int)
        return [self[index] for index in chosen.tolist()]
