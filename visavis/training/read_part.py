"""The weights that a training starts from: a part's folder, as `visavis train export` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from visavis.training.errors import TrainingError


def read_part(kind: Any, folder: Path, what: str) -> Any:
    """A network of the diffusers class `kind`, in float32 on the CPU. Raises TrainingError, which calls it `what`."""
    try:
        return kind.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True, low_cpu_mem_usage=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise TrainingError(f"{folder} holds no weights of {what}: {error}") from error
