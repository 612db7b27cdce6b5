"""Reads the weight files of the original networks, which a user brings along."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visavis.evaluation.errors import EvaluationError

# Not in files written by old versions of torch; it counts batches and changes nothing in inference.
_COUNTER = "num_batches_tracked"


def read_state(path: Path) -> Mapping[str, Any]:
    """What torch.save wrote, tensors and plain values only. Raises EvaluationError."""
    try:
        state: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise EvaluationError(f"cannot read the weights in {path}: {error}") from error
    if not isinstance(state, Mapping):
        raise EvaluationError(f"{path} holds a {type(state).__name__}, no weights by name")
    return state


def fill(network: nn.Module, state: Mapping[str, Tensor], path: Path, unused: Collection[str] = ()) -> None:
    """Puts the weights into the network, which becomes ready for inference. Every name and shape has to fit.

    `unused`: beginnings of names in the file that the network does without. Raises EvaluationError.
    """
    wanted = {name: value for name, value in state.items() if not name.startswith(tuple(unused))}
    try:
        missing, unexpected = network.load_state_dict(wanted, strict=False)
    except RuntimeError as error:
        raise EvaluationError(f"the weights in {path} are of another network: {error}") from error
    missing = [name for name in missing if not name.endswith(_COUNTER)]
    if missing or unexpected:
        raise EvaluationError(f"the weights in {path} are of another network: lacking {missing}, beyond {unexpected}")
    network.eval().requires_grad_(False)
