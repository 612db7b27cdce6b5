"""A task that learns a straight line: all of the loop with next to no work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from visavis.training.plan import Cadence, Phase, Plan
from visavis.training.task import ParameterGroup


class LineTask:
    def __init__(self, factor: Callable[[], float] = lambda: 1.0) -> None:
        torch.manual_seed(1)
        self.model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1), nn.Linear(4, 1))
        self.entered: list[str] = []
        self._factor = factor

    def enter_phase(self, phase: Phase) -> None:
        self.entered.append(phase.name)

    def begin_phase(self, phase: Phase) -> Sequence[ParameterGroup]:
        last = ParameterGroup(list(self.model[2].parameters()), rate=phase.options.get("last_rate", 1.0))
        return [last] if phase.options.get("last_layer") else [ParameterGroup(list(self.model[0].parameters())), last]

    def batch(self, phase: Phase, chance: np.random.Generator) -> Tensor:
        return torch.from_numpy(chance.normal(size=(8, 4)).astype(np.float32))

    def loss(self, forward: nn.Module, batch: Tensor, device: torch.device) -> Mapping[str, Tensor]:
        error = forward(batch.to(device)) - batch.to(device).sum(dim=1, keepdim=True)
        return {"loss": error.square().mean() * self._factor(), "bias": error.mean()}

    def evaluate(self, averaged: nn.Module, phase: Phase, device: torch.device, samples: Path) -> Mapping[str, float]:
        samples.write_bytes(b"")
        return {"weight": float(averaged[2].weight.sum())}  # type: ignore[index]


def line_plan(*phases: Phase, seed: int = 3) -> Plan:
    return Plan("line", "tiny", seed, 0.9, Cadence(1e9, 1e9), {}, phases or (line_phase("all"),))


def line_phase(
    name: str, steps: int = 12, minutes: float | None = None, last_layer: bool = False, last_rate: float = 1.0
) -> Phase:
    options = {"last_layer": last_layer, "last_rate": last_rate}
    return Phase(name, steps, minutes, 5e-2, 2, accumulation=2, gradient_checkpointing=False, options=options)
