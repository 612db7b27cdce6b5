"""Settings of the generator's worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from services.admission import AdmissionSettings, read_admission_settings
from services.model_settings import ModelSettings, read_max_batch, read_model_settings
from visavis.models.execution import EXECUTIONS, Execution
from visavis.runtime.settings import Environment


@dataclass(frozen=True, slots=True)
class GeneratorSettings:
    """What the generator needs to know beside what every service does."""

    model: ModelSettings
    # "standard" or "fast".
    sampling: str
    # How forward passes are carried out.
    execution: Execution
    # Avatars whose sinks are kept.
    sink_capacity: int
    # Of a session, beside the last; 0: what fits into 64 MiB, 2 to 8.
    kept_borders: int
    # For the state of a session to come from another generator, or to go to one.
    transfer_seconds: float
    # Sessions that share a forward pass; 1: one after the other.
    max_batch: int
    admission: AdmissionSettings


def read_generator_settings(environment: Environment) -> GeneratorSettings:
    """Reads the model's settings and those of admission, VISAVIS_SAMPLING, _EXECUTION, _SINK_CAPACITY,
    _KEPT_BORDERS, _TRANSFER_SECONDS and _MAX_BATCH; raises SettingsError.
    """
    return GeneratorSettings(
        model=read_model_settings(environment),
        sampling=environment.choice("SAMPLING", "standard", ("standard", "fast")),
        execution=cast("Execution", environment.choice("EXECUTION", "eager", EXECUTIONS)),
        sink_capacity=environment.integer("SINK_CAPACITY", 64, minimum=1, maximum=100_000),
        kept_borders=environment.integer("KEPT_BORDERS", 0, maximum=1000),
        transfer_seconds=environment.seconds("TRANSFER_SECONDS", 10.0, minimum=0.01),
        max_batch=read_max_batch(environment),
        admission=read_admission_settings(environment),
    )
