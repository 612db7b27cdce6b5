"""Messages of the audio encoder's contract."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tests.services.engine_driver import header
from visavis.v1 import audio_encoder_pb2

CHUNK = 15_360
AHEAD = 1_280


def clip(seed: int, chunks: int = 3) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, chunks * CHUNK).astype(np.float32)


def chunk_of(samples: npt.NDArray[np.float32], index: int) -> audio_encoder_pb2.SpeechChunk:
    start, end = CHUNK * (index - 1), CHUNK * index
    return audio_encoder_pb2.SpeechChunk(
        header=header(index), samples=samples[start:end].tobytes(), lookahead=samples[end : end + AHEAD].tobytes()
    )
