"""The speech of one utterance, cut into what chunks take: the client's bytes beside what the model hears."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.audio_format import PcmFormat
from gateway.resampling import SpeechResampler
from visavis.contract import CHUNK_SAMPLES, LOOKAHEAD_SAMPLES


@dataclass(frozen=True, slots=True)
class SpeechSlice:
    """What one chunk takes from an utterance."""

    samples_S: NDArray[np.float32]
    """[15360] at 16 kHz, silence at the end where speech ended."""
    lookahead_S: NDArray[np.float32]
    """[up to 1280] at 16 kHz; what is missing is silence."""
    pcm: bytes
    """The client's own bytes for the whole chunk, silence at the end where speech ended."""
    sample_count: int
    """Samples of the client's in it; the rest is silence."""
    ready_at: float
    """When the last audio arrived that this slice needs."""


class Utterance:
    """Speech between two ends: grows by `feed`, closes once, is taken slice by slice from its front.

    A slice is cut when it has all it needs, so it depends on the speech alone and never on when it is taken.
    Invariant: while open, the 16 kHz samples lag the bytes by the resampler's delay; once closed, none is held back.
    """

    def __init__(self, utterance_id: int, audio_format: PcmFormat) -> None:
        self.utterance_id = utterance_id
        self.closed = False
        self._format = audio_format
        self._resampler = SpeechResampler(audio_format.sample_rate_hz)
        self._pcm = bytearray()
        self._samples = np.zeros(0, np.float32)
        self._slices: deque[SpeechSlice] = deque()

    @property
    def pending_samples(self) -> int:
        """Samples not taken yet, in the client's sample rate."""
        return self._uncut_samples + sum(speech.sample_count for speech in self._slices)

    @property
    def ready(self) -> bool:
        """Whether the next chunk has all it needs: its samples and its lookahead, or the utterance's end."""
        return bool(self._slices)

    def feed(self, pcm: bytes, now: float) -> None:
        """Append a block. Errors: `InvalidInput` for bytes that are no such audio; nothing is kept then."""
        assert not self.closed
        mono = self._format.mono(pcm)
        self._pcm += pcm
        self._append(self._resampler.feed(mono))
        while len(self._samples) >= CHUNK_SAMPLES + LOOKAHEAD_SAMPLES:
            self._cut(now)

    def close(self, now: float) -> None:
        """No more speech: everything pending becomes ready, the last chunk filled up with silence."""
        assert not self.closed
        self.closed = True
        self._append(self._resampler.finish())
        while self._pcm:
            self._cut(now)

    def break_off(self, now: float) -> None:
        """The next chunk gets silence in place of what has not arrived; later speech starts at the chunk after it."""
        assert self._pcm, "there is speech to take"
        assert not self.ready, "a ready chunk is taken whole"
        if len(self._samples) < CHUNK_SAMPLES:
            # Speech breaks off here for the listener, so the filter may end here too.
            self._append(self._resampler.finish())
            self._resampler = SpeechResampler(self._format.sample_rate_hz)
        self._cut(now)

    def take(self) -> SpeechSlice:
        """The next chunk's, which must be `ready`."""
        return self._slices.popleft()

    @property
    def _uncut_samples(self) -> int:
        return len(self._pcm) // self._format.bytes_per_sample

    def _cut(self, ready_at: float) -> None:
        sample_count = min(self._uncut_samples, self._format.samples_per_chunk)
        byte_count = self._format.samples_per_chunk * self._format.bytes_per_sample
        pcm = bytes(self._pcm[:byte_count]).ljust(byte_count, b"\0")
        samples = self._samples[:CHUNK_SAMPLES]
        lookahead = self._samples[CHUNK_SAMPLES : CHUNK_SAMPLES + LOOKAHEAD_SAMPLES]
        del self._pcm[:byte_count]
        # Rounding to 16 kHz may leave one sample that no client sample stands for.
        self._samples = self._samples[CHUNK_SAMPLES:] if self._pcm else np.zeros(0, np.float32)
        padded = np.pad(samples, (0, CHUNK_SAMPLES - len(samples)))
        self._slices.append(SpeechSlice(padded, lookahead, pcm, sample_count, ready_at))

    def _append(self, samples: NDArray[np.float32]) -> None:
        self._samples = np.concatenate([self._samples, samples])
