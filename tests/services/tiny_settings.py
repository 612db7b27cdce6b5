"""Settings of engines on the tiny preset. Nothing is left to measurement: `max_batch` decides who shares a pass."""

from __future__ import annotations

from services.admission import AdmissionSettings
from services.audio_encoder.settings import AudioEncoderSettings
from services.decoder.settings import DecoderSettings
from services.generator.settings import GeneratorSettings
from services.model_settings import ModelSettings
from visavis.models.execution import Execution

MODEL = ModelSettings("tiny", "cpu", "float32")
ADMISSION = AdmissionSettings(slots=4, headroom=0.0, memory_bytes=2**40, slower_than_real_time=True)


def audio_encoder_settings(*, max_batch: int = 1) -> AudioEncoderSettings:
    return AudioEncoderSettings(MODEL, max_batch)


def generator_settings(
    *,
    sampling: str = "standard",
    sink_capacity: int = 2,
    kept_borders: int = 0,
    max_batch: int = 1,
    execution: Execution = "eager",
    admission: AdmissionSettings = ADMISSION,
) -> GeneratorSettings:
    return GeneratorSettings(MODEL, sampling, execution, sink_capacity, kept_borders, 10.0, max_batch, admission)


def decoder_settings(*, encoding_threads: int = 2, kept_borders: int = 0, max_batch: int = 1) -> DecoderSettings:
    return DecoderSettings(MODEL, encoding_threads, kept_borders, max_batch)
