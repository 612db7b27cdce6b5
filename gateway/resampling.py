"""From the client's sample rate to the model's 16 kHz, one piece of speech at a time."""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

from visavis.contract import SAMPLE_RATE_HZ


def resampled_length(samples: int, sample_rate_hz: int) -> int:
    """How many 16 kHz samples belong to `samples` at `sample_rate_hz`: the nearest whole number, halves up."""
    return (2 * samples * SAMPLE_RATE_HZ + sample_rate_hz) // (2 * sample_rate_hz)


class SpeechResampler:
    """Streaming resampler for one piece of speech: mono float32 at any rate in, 16 kHz out.

    What comes out over the whole piece depends on the samples alone, never on how they were cut into blocks, and
    counts exactly `resampled_length` samples. Output lags the input by the filter's delay (about 40 ms) until `finish`.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self._sample_rate_hz = sample_rate_hz
        self._samples_in = 0
        self._samples_out = 0
        self._stream: soxr.ResampleStream | None = None
        if sample_rate_hz != SAMPLE_RATE_HZ:
            self._stream = soxr.ResampleStream(sample_rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")

    def feed(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take `[samples]` in, give what is complete at 16 kHz out (may be empty)."""
        self._samples_in += len(samples)
        if self._stream is None:
            return samples
        # The length of the whole is known only at the end; what is out must never exceed it.
        return self._count(self._stream.resample_chunk(samples))

    def finish(self) -> NDArray[np.float32]:
        """The rest that the filter held back; the resampler is used up."""
        if self._stream is None:
            return np.zeros(0, np.float32)
        rest = self._count(self._stream.resample_chunk(np.zeros(0, np.float32), last=True))
        missing = resampled_length(self._samples_in, self._sample_rate_hz) - self._samples_out
        return np.pad(rest, (0, missing)) if missing >= 0 else rest[:missing]

    def _count(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        self._samples_out += len(samples)
        return samples
