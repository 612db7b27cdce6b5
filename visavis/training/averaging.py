"""A moving average of the weights: smoother than the last step, and what evaluation and export use."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def average_of(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of `model` whose parameters follow it; `update_parameters` after each step. Buffers are copied.

    The first steps count more, so that the start is soon forgotten: decay min(`decay`, (1 + n) / (10 + n)).
    """

    @torch.no_grad()
    def follow(averages: Sequence[Tensor], currents: Sequence[Tensor], updates: Tensor | int) -> None:
        n = int(updates)
        torch._foreach_lerp_(list(averages), list(currents), 1.0 - min(decay, (1 + n) / (10 + n)))

    averaged = AveragedModel(model, multi_avg_fn=follow)
    averaged.eval().requires_grad_(False)
    return averaged
