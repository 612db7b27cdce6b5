"""What a training runs on."""

from __future__ import annotations

from pathlib import Path

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


def frozen_autocast(device: torch.device) -> torch.autocast:
    """In which networks compute that stand beside the one that learns: as that one does (`accelerator_for`)."""
    fast = resolve_dtype("auto", device) == torch.bfloat16
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast)


def describe(accelerator: Accelerator) -> str:
    """The hardware in words, for logs and model cards."""
    if accelerator.device.type == "cuda":
        place = f"{accelerator.num_processes} x {torch.cuda.get_device_name()}"
    else:
        place = f"{torch.get_num_threads()} threads of {_cpu_name()}"
    return f"{place}, {accelerator.mixed_precision.replace('no', 'fp32')}, torch {torch.__version__}"


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "a CPU"
