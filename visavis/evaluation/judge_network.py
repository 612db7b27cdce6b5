"""The network of a judge that a plan trains: from a folder of weights, or seeded random ones."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from diffusers.models.modeling_utils import ModelMixin

from visavis.models.checkpoints import placed
from visavis.training.errors import TrainingError
from visavis.training.plan import Plan

Judge = TypeVar("Judge", bound=ModelMixin)


def judge_network(kind: type[Judge], plan: Plan, weights: Path | None) -> Judge:
    """Float32 on the CPU. Raises TrainingError for a folder without such weights and for task_options it has not."""
    try:
        if weights is not None:
            loaded: Judge = kind.from_pretrained(weights, local_files_only=True, low_cpu_mem_usage=False)
            return placed(loaded, torch.device("cpu"), torch.float32)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            return kind(**plan.task_options)
    except (OSError, TypeError, ValueError) as error:
        source = weights or "the task_options"
        raise TrainingError(f"no {kind.__name__} can be made of {source}: {error}") from error
