"""Settings of the audio encoder's worker."""

from __future__ import annotations

from dataclasses import dataclass

from services.model_settings import ModelSettings, read_max_batch, read_model_settings
from visavis.runtime.settings import Environment


@dataclass(frozen=True, slots=True)
class AudioEncoderSettings:
    """What the audio encoder's engine needs to know."""

    model: ModelSettings
    # Sessions whose chunks are encoded in one pass; 1: one after the other.
    max_batch: int


def read_audio_encoder_settings(environment: Environment) -> AudioEncoderSettings:
    """Reads the model's settings and VISAVIS_MAX_BATCH; raises SettingsError."""
    return AudioEncoderSettings(model=read_model_settings(environment), max_batch=read_max_batch(environment))
