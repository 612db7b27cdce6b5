"""What counts as speech and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audio_format import PcmFormat, parse_audio_format
from tests.gateway.strategies import F32, S16, noise_pcm, pcm_formats
from visavis.runtime.errors import InvalidInput
from visavis.v1.media_pb2 import AudioFormat


@given(pcm_formats())
def test_every_allowed_format_is_accepted_as_it_is(audio_format: PcmFormat) -> None:
    message = AudioFormat(
        encoding=audio_format.encoding,
        sample_rate_hz=audio_format.sample_rate_hz,
        channel_count=audio_format.channel_count,
    )
    assert parse_audio_format(message) == audio_format
    assert audio_format.samples_per_frame * 25 == audio_format.sample_rate_hz


@given(st.integers(0, 2**32 - 1).filter(lambda r: not 8_000 <= r <= 96_000 or r % 25))
def test_an_impossible_sample_rate_is_refused(rate: int) -> None:
    with pytest.raises(InvalidInput, match="sample_rate_hz"):
        parse_audio_format(AudioFormat(encoding=S16, sample_rate_hz=rate))


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (AudioFormat(sample_rate_hz=16_000), "encoding"),
        (AudioFormat(encoding=9, sample_rate_hz=16_000), "encoding"),  # type: ignore[arg-type]
        (AudioFormat(encoding=F32, sample_rate_hz=16_000, channel_count=3), "channel_count"),
    ],
)
def test_unknown_encodings_and_channel_counts_are_refused(message: AudioFormat, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_audio_format(message)
    assert refused.value.field.endswith(field)


def test_no_channel_count_means_mono() -> None:
    assert parse_audio_format(AudioFormat(encoding=S16, sample_rate_hz=8_000)).channel_count == 1


@given(pcm_formats(), st.binary(max_size=64))
def test_a_block_is_refused_exactly_when_it_is_no_whole_number_of_finite_samples(
    audio_format: PcmFormat, pcm: bytes
) -> None:
    whole = len(pcm) > 0 and len(pcm) % audio_format.bytes_per_sample == 0
    finite = whole and (audio_format.encoding == S16 or bool(np.isfinite(np.frombuffer(pcm, "<f4")).all()))
    if finite:
        mono = audio_format.mono(pcm)
        assert mono.dtype == np.float32
        assert mono.shape == (len(pcm) // audio_format.bytes_per_sample,)
        assert np.abs(mono).max() <= 1
    else:
        with pytest.raises(InvalidInput):
            audio_format.mono(pcm)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(bad: float) -> None:
    with pytest.raises(InvalidInput, match="NaN"):
        PcmFormat(F32, 16_000, 1).mono(np.array([0, bad], "<f4").tobytes())


def test_a_block_over_one_mebibyte_is_refused() -> None:
    audio_format = PcmFormat(S16, 48_000, 1)
    assert len(audio_format.mono(bytes(1 << 20))) == 1 << 19
    with pytest.raises(InvalidInput, match="1048576"):
        audio_format.mono(bytes((1 << 20) + 2))


def test_stereo_is_averaged() -> None:
    pcm = np.array([16384, -16384, 16384, 0], "<i2").tobytes()
    assert PcmFormat(S16, 16_000, 2).mono(pcm).tolist() == [0.0, 0.25]


@given(pcm_formats(), st.integers(1, 200))
def test_both_encodings_sound_alike(audio_format: PcmFormat, samples: int) -> None:
    floats = PcmFormat(F32, audio_format.sample_rate_hz, 1)
    integers = PcmFormat(S16, audio_format.sample_rate_hz, 1)
    difference = floats.mono(noise_pcm(floats, samples, 1)) - integers.mono(noise_pcm(integers, samples, 1))
    assert np.abs(difference).max() < 1e-4
