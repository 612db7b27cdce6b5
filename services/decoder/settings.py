"""Settings of the decoder's worker."""

from __future__ import annotations

from dataclasses import dataclass

from services.model_settings import ModelSettings, read_max_batch, read_model_settings
from visavis.runtime.settings import Environment


@dataclass(frozen=True, slots=True)
class DecoderSettings:
    """What the decoder's engine needs to know."""

    model: ModelSettings
    # Threads that encode pictures beside torch.
    encoding_threads: int
    # Of a session, beside the last; 0: what fits into 64 MiB, 2 to 8.
    kept_borders: int
    # Sessions whose chunks are decoded in one pass; 1: one after the other.
    max_batch: int


def read_decoder_settings(environment: Environment) -> DecoderSettings:
    """Reads the model's settings, VISAVIS_ENCODING_THREADS, _KEPT_BORDERS and _MAX_BATCH; raises SettingsError."""
    return DecoderSettings(
        model=read_model_settings(environment),
        encoding_threads=environment.integer("ENCODING_THREADS", 2, minimum=1, maximum=64),
        kept_borders=environment.integer("KEPT_BORDERS", 0, maximum=1000),
        max_batch=read_max_batch(environment),
    )
