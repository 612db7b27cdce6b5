"""What the loop asks of a task, and what it tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from visavis.training.plan import Phase

Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """Parameters that learn together; `rate` times the phase's learning rate is theirs."""

    parameters: Sequence[nn.Parameter]
    rate: float = 1.0


class Task(Protocol[Batch]):
    """What is learnt. `Batch` is whatever `batch` makes and `loss` reads."""

    @property
    def model(self) -> nn.Module:
        """Whose weights are trained, averaged and kept in checkpoints. The loop moves it to its device."""

    def enter_phase(self, phase: Phase) -> None:
        """Called once, before a phase's first step, not when it is resumed: may change weights of `model`."""

    def begin_phase(self, phase: Phase) -> Sequence[ParameterGroup]:
        """The parameters of `model` that `phase` trains, always in the same order; all others are held still.

        Called when a phase starts or is resumed. Raises TrainingError for options that the task does not know.
        """

    def batch(self, phase: Phase, chance: np.random.Generator) -> Batch:
        """One batch of one process, on the CPU, all chance drawn from `chance`. Runs in threads, some steps ahead."""

    def loss(self, forward: nn.Module, batch: Batch, device: torch.device) -> Mapping[str, Tensor]:
        """Scalars; "loss" is what falls, all are logged.

        `forward` is the model as the loop wrapped it (autocast, several GPUs): call it instead of `model`. torch's
        global generators are seeded for each batch, so random numbers may be drawn freely.
        """

    def evaluate(self, averaged: nn.Module, phase: Phase, device: torch.device, samples: Path) -> Mapping[str, float]:
        """Measures of the averaged weights on held-out data; draws some of it to `samples`, a PNG."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a run stops although the plan is not over; the next run goes on there. None: no limit."""

    steps: int | None
    minutes: float | None


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training stands, told after each step."""

    step: int
    phase: str
    # of the phase, 0 to 1
    phase_progress: float
    loss: float
    seconds_per_step: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended; `finished` means the whole plan."""

    step: int
    finished: bool
