"""Hypothesis strategies for audio formats and speech."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from gateway.audio_format import PcmFormat
from visavis.v1 import media_pb2

S16 = media_pb2.AUDIO_ENCODING_PCM_S16LE
F32 = media_pb2.AUDIO_ENCODING_PCM_F32LE


def pcm_formats() -> st.SearchStrategy[PcmFormat]:
    """Every format the contract allows; usual rates more often."""
    rates = st.sampled_from([8_000, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000]) | st.integers(320, 3840).map(
        lambda n: 25 * n
    )
    return st.builds(PcmFormat, st.sampled_from([S16, F32]), rates, st.sampled_from([1, 2]))


def noise_pcm(audio_format: PcmFormat, samples: int, seed: int) -> bytes:
    """`samples` of noise in the format."""
    values = np.random.default_rng(seed).uniform(-0.5, 0.5, samples * audio_format.channel_count)
    if audio_format.encoding == S16:
        return (values * 32767).astype("<i2").tobytes()
    return values.astype("<f4").tobytes()


def cut(pcm: bytes, audio_format: PcmFormat, borders: list[float]) -> list[bytes]:
    """`pcm` in blocks, cut at the given parts of its length, none empty or over the limit of a message."""
    size = audio_format.bytes_per_sample
    count = len(pcm) // size
    step = (1 << 20) // size
    cuts = sorted({0, count, *(int(b * count) for b in borders), *range(0, count, step)})
    return [pcm[a * size : b * size] for a, b in pairwise(cuts)]
