"""An adapter: small matrices that turn a transformer into another one when they are added to its linear layers.

Every linear layer's weight W becomes W + up @ down (LoRA, Hu et al. 2021, with a scale of 1). While it is learnt, the
sum is taken wherever a weight is read, so also where it is multiplied into something else (`AudioAttention.fold`),
which a layer wrapped around `nn.Linear` would miss. For inference it is taken once (`merge_adapter`): what is fused,
packed or rounded afterwards is a transformer like any other.

Legend: O outputs and I inputs of a linear layer, R rank.

A folder with config.json and adapter.safetensors, whose tensors are LAYER.up and LAYER.down.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import parametrize

from visavis.models.generation import SamplingSettings

CONFIG_FILE: Final = "config.json"
TENSORS_FILE: Final = "adapter.safetensors"
_UP, _DOWN = ".up", ".down"


class _LowRankSum(nn.Module):
    """What stands for a weight while its adapter is learnt."""

    def __init__(self, weight_OI: torch.Tensor, rank: int) -> None:
        super().__init__()
        outputs, inputs = weight_OI.shape
        self.down_RI = nn.Parameter(torch.randn(rank, inputs, device=weight_OI.device) * inputs**-0.5)
        # Zero, so that learning begins at the unchanged network.
        self.up_OR = nn.Parameter(torch.zeros(outputs, rank, device=weight_OI.device))

    def forward(self, weight_OI: torch.Tensor) -> torch.Tensor:
        """The adapted weight."""
        return weight_OI + self.up_OR @ self.down_RI


@dataclass(frozen=True, slots=True)
class Adapter:
    """What a folder holds."""

    # What the adapted transformer was distilled for.
    sampling: SamplingSettings
    # Of the transformer that it belongs to, as `weights_sha256` says it.
    student_sha256: str
    tensors: Mapping[str, torch.Tensor]


def add_adapter(transformer: nn.Module, rank: int) -> list[nn.Parameter]:
    """Gives every linear layer an adapter that changes nothing yet; returns what is to be learnt.

    Raises `ValueError` for a rank below 1.
    """
    if rank < 1:
        raise ValueError(f"an adapter's rank must be at least 1, got {rank}")
    for layer in list(_linear_layers(transformer).values()):
        parametrize.register_parametrization(layer, "weight", _LowRankSum(layer.weight, rank))
    return adapter_parameters(transformer)


def adapter_parameters(transformer: nn.Module) -> list[nn.Parameter]:
    """What `add_adapter` added, always in the same order."""
    return [part for addition in _additions(transformer).values() for part in (addition.up_OR, addition.down_RI)]


def adapter_tensors(transformer: nn.Module) -> dict[str, torch.Tensor]:
    """What was learnt, by the names it has in a file."""
    tensors = {}
    for name, addition in _additions(transformer).items():
        tensors[name + _UP], tensors[name + _DOWN] = addition.up_OR.detach(), addition.down_RI.detach()
    return tensors


@torch.no_grad()
def merge_adapter(transformer: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Adds an adapter to the weights for good, in float32, before they are fused.

    Raises `ValueError` for one that was not made for every linear layer of this transformer.
    """
    layers = _linear_layers(transformer)
    if tensors.keys() != {name + end for name in layers for end in (_UP, _DOWN)}:
        raise ValueError("the adapter was made for another transformer: its layers differ")
    for name, layer in layers.items():
        up_OR, down_RI = tensors[name + _UP].float(), tensors[name + _DOWN].float()
        if (up_OR.shape[0], down_RI.shape[1]) != layer.weight.shape or up_OR.shape[1] != down_RI.shape[0]:
            raise ValueError(f"the adapter was made for another transformer: {name} has another size")
        layer.weight.copy_(layer.weight.float() + (up_OR @ down_RI).to(layer.weight.device))


def write_adapter(folder: Path, adapter: Adapter) -> None:
    """Writes a folder's two files, the tensors in bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.to("cpu", torch.bfloat16).contiguous() for name, tensor in adapter.tensors.items()}
    save_file(tensors, folder / TENSORS_FILE)
    config = {"sampling": asdict(adapter.sampling), "student_sha256": adapter.student_sha256}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")


def read_adapter(folder: Path) -> Adapter:
    """Reads a folder. Raises `ValueError`, naming it, where it holds no adapter."""
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text())
        sampling = SamplingSettings(**config["sampling"])
        return Adapter(sampling, config["student_sha256"], load_file(folder / TENSORS_FILE))
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise ValueError(f"{folder} holds no adapter: {error!r}") from error


def adapter_fingerprint(folder: Path) -> str:
    """SHA-256 (hex) over both files of an adapter."""
    digest = hashlib.sha256()
    for name in (CONFIG_FILE, TENSORS_FILE):
        digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return digest.hexdigest()


def weights_sha256(folder: Path) -> str:
    """SHA-256 (hex) over the safetensors of a part's folder: says which student an adapter belongs to.

    Raises `ValueError` for a folder without any.
    """
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise ValueError(f"{folder} holds no safetensors")
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def _linear_layers(transformer: nn.Module) -> dict[str, nn.Linear]:
    return {name: module for name, module in transformer.named_modules() if isinstance(module, nn.Linear)}


def _additions(transformer: nn.Module) -> dict[str, _LowRankSum]:
    ending = ".parametrizations.weight.0"
    return {
        name.removesuffix(ending): module
        for name, module in transformer.named_modules()
        if isinstance(module, _LowRankSum)
    }
