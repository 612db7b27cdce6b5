"""What a training runs on."""

from __future__ import annotations

import torch
from accelerate import Accelerator

from visavis.models.checkpoints import resolve_device, resolve_dtype


def accelerator_for(device: str) -> Accelerator:
    """Accelerate on "cpu" or, with "auto", on CUDA where there is one; several processes when launched as several.

    Autocasts to bfloat16 on CUDA and on CPUs with AMX; elsewhere bfloat16 is slower than float32.
    """
    place = resolve_device(device)
    fast = resolve_dtype("auto", place) == torch.bfloat16
    return Accelerator(cpu=place.type == "cpu", mixed_precision="bf16" if fast else "no")
