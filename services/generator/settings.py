"""Settings of the generator's worker."""

from __future__ import annotations

from dataclasses import dataclass

from services.model_settings import ModelSettings, read_model_settings
from visavis.runtime.settings import Environment


@dataclass(frozen=True, slots=True)
class GeneratorSettings:
    """What the generator's engine needs to know."""

    model: ModelSettings
    # Avatars whose sinks are kept.
    sink_capacity: int


def read_generator_settings(environment: Environment) -> GeneratorSettings:
    """Reads the model's settings and VISAVIS_SINK_CAPACITY; raises SettingsError."""
    return GeneratorSettings(
        model=read_model_settings(environment),
        sink_capacity=environment.integer("SINK_CAPACITY", 64, minimum=1, maximum=100_000),
    )
