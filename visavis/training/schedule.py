"""The learning rate over a phase: up in a line, down along a cosine."""

from __future__ import annotations

import math

from visavis.training.plan import Phase


def learning_rate(phase: Phase, steps: int, minutes: float) -> float:
    """Of the step after `steps` steps and `minutes` minutes of the phase; it falls to zero at the phase's end."""
    rise = min(1.0, (steps + 1) / (phase.warmup_steps + 1))
    fall = 0.5 * (1.0 + math.cos(math.pi * phase.progress(steps, minutes)))
    return phase.learning_rate * rise * fall
