import numpy as np
import pytest

from services.audio_encoder.samples import read_samples
from visavis.runtime.errors import InvalidInput
from visavis.v1 import audio_encoder_pb2

CHUNK = np.linspace(-1, 1, 15_360, dtype="<f4")
AHEAD = np.linspace(1, -1, 1_280, dtype="<f4")


@pytest.mark.parametrize("ahead", [0, 1, 1_280])
def test_samples_come_out_as_they_went_in(ahead: int) -> None:
    chunk = audio_encoder_pb2.SpeechChunk(samples=CHUNK.tobytes(), lookahead=AHEAD[:ahead].tobytes())
    samples, lookahead = read_samples(chunk)
    np.testing.assert_array_equal(samples, CHUNK)
    np.testing.assert_array_equal(lookahead, AHEAD[:ahead])
    assert samples.flags.writeable


@pytest.mark.parametrize(
    ("samples", "lookahead", "field"),
    [
        (b"", b"", "chunk.samples"),
        (CHUNK[:-1].tobytes(), b"", "chunk.samples"),
        (CHUNK.tobytes() + b"\0", b"", "chunk.samples"),
        (np.full(15_360, np.nan, "<f4").tobytes(), b"", "chunk.samples"),
        (CHUNK.tobytes(), np.zeros(1_281, "<f4").tobytes(), "chunk.lookahead"),
        (CHUNK.tobytes(), b"abc", "chunk.lookahead"),
        (CHUNK.tobytes(), np.full(8, np.inf, "<f4").tobytes(), "chunk.lookahead"),
    ],
)
def test_anything_else_is_refused_by_name(samples: bytes, lookahead: bytes, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_samples(audio_encoder_pb2.SpeechChunk(samples=samples, lookahead=lookahead))
    assert caught.value.field == field
