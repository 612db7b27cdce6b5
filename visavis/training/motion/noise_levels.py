"""How noisy each chunk of a training sample is: the chunk-wise asynchronous noise scheduler (paper section C.6.1).

A level (the paper's time t) is 0 for clean latents and 1 for pure noise.

B samples, S = 4 segments of a sample, each a chunk (the first one is counted with the ID latent, 4 + 3 + 3 + 3)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

SEGMENTS: Final = 4
# Of the global noise schedule.
LEVELS: Final = 1_000

Levels = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class NoiseOptions:
    """`shift` is that of the preset's schedule, exp(mu), so that training dwells where sampling goes.

    asynchronous: the probability of a level for each chunk, the earlier the cleaner, instead of one for all (motion
    prior dropout, p = 0.5). uniform: the share of the schedule's levels drawn evenly from 0 to 1. The paper has none,
    but sampling starts at pure noise, which a logit-normal distribution all but never gives.
    """

    shift: float
    asynchronous: float
    uniform: float


def draw_schedule(chance: np.random.Generator, shift: float, uniform: float) -> Levels:
    """1,000 levels from a shifted logit-normal distribution, ascending."""
    logits = math.log(shift) + chance.normal(size=LEVELS)
    levels = 1.0 / (1.0 + np.exp(-logits))
    evenly = round(uniform * LEVELS)
    levels[:evenly] = chance.uniform(size=evenly)
    return np.sort(levels).astype(np.float32)


def draw_levels(chance: np.random.Generator, samples: int, options: NoiseOptions) -> Levels:
    """The level of each segment [B, S]: t_i = N[n_i] with n_i from [250 (i - 1), 250 i) (Eq. 70), or one for all."""
    return np.stack([_sample(chance, options) for _ in range(samples)])


def _sample(chance: np.random.Generator, options: NoiseOptions) -> Levels:
    schedule = draw_schedule(chance, options.shift, options.uniform)
    if chance.random() >= options.asynchronous:
        return np.full(SEGMENTS, schedule[chance.integers(LEVELS)], dtype=np.float32)
    width = LEVELS // SEGMENTS
    chosen: Levels = schedule[width * np.arange(SEGMENTS) + chance.integers(width, size=SEGMENTS)]
    return chosen
