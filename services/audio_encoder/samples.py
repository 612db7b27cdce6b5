"""The samples of a chunk as they cross the network."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from visavis.contract import CHUNK_SAMPLES, LOOKAHEAD_SAMPLES
from visavis.runtime.errors import InvalidInput
from visavis.v1 import audio_encoder_pb2

_SAMPLE = np.dtype("<f4")


def read_samples(
    chunk: audio_encoder_pb2.SpeechChunk, field: str = "chunk"
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Returns a chunk's samples `[15360]` and lookahead `[0 to 1280]`, both writable copies; `field` names the chunk.

    Raises:
        InvalidInput: a wrong length, NaN or infinity; naming the field.
    """
    size = _SAMPLE.itemsize
    if len(chunk.samples) != CHUNK_SAMPLES * size:
        raise InvalidInput(
            f"a chunk is {CHUNK_SAMPLES} float32 samples, got {len(chunk.samples)} bytes", f"{field}.samples"
        )
    if len(chunk.lookahead) > LOOKAHEAD_SAMPLES * size or len(chunk.lookahead) % size:
        raise InvalidInput(
            f"lookahead is at most {LOOKAHEAD_SAMPLES} float32 samples, got {len(chunk.lookahead)} bytes",
            f"{field}.lookahead",
        )
    return _finite(chunk.samples, f"{field}.samples"), _finite(chunk.lookahead, f"{field}.lookahead")


def _finite(data: bytes, field: str) -> npt.NDArray[np.float32]:
    samples = np.frombuffer(data, _SAMPLE).astype(np.float32)
    if not np.isfinite(samples).all():
        raise InvalidInput("the speech holds NaN or infinity", field)
    return samples
