"""Which model a stage runs, where and how precisely: the settings that the three model services share."""

from __future__ import annotations

from dataclasses import dataclass

from visavis.models.execution import DTYPES
from visavis.runtime.settings import Environment


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Read once in the service process, handed to the worker."""

    # Preset name or folder.
    model: str
    # "auto", "cpu" or "cuda".
    device: str
    # "auto", "float32", "bfloat16"; or the transformer's large products in 8 bits: "int8" on a CPU, "fp8" on a GPU.
    dtype: str


def read_model_settings(environment: Environment) -> ModelSettings:
    """Reads VISAVIS_MODEL, VISAVIS_DEVICE and VISAVIS_DTYPE; raises SettingsError."""
    return ModelSettings(
        model=environment.text("MODEL", "mini"),
        device=environment.choice("DEVICE", "auto", ("auto", "cpu", "cuda")),
        dtype=environment.choice("DTYPE", "auto", DTYPES),
    )


def read_max_batch(environment: Environment) -> int:
    """Reads VISAVIS_MAX_BATCH: sessions that one pass of a stage may serve; raises SettingsError."""
    return environment.integer("MAX_BATCH", 16, minimum=1, maximum=1024)
