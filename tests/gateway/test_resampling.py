"""Speech at 16 kHz: exact length, the same for any packets, and it is the same sound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.resampling import SpeechResampler, resampled_length

RATES = st.sampled_from([8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000]) | st.integers(320, 3840).map(
    lambda n: 25 * n
)


@given(RATES, st.integers(0, 30_000), st.lists(st.floats(0, 1), max_size=8), st.integers(0, 9))
@settings(deadline=None, max_examples=60)
def test_length_is_exact_and_packets_do_not_matter(rate: int, samples: int, borders: list[float], seed: int) -> None:
    speech = np.random.default_rng(seed).uniform(-0.5, 0.5, samples).astype(np.float32)
    whole_resampler = SpeechResampler(rate)
    whole = np.concatenate([whole_resampler.feed(speech), whole_resampler.finish()])
    assert len(whole) == resampled_length(samples, rate)
    assert abs(len(whole) - samples * 16_000 / rate) <= 0.5

    resampler = SpeechResampler(rate)
    blocks = np.split(speech, sorted(int(b * samples) for b in borders))
    parts = [resampler.feed(block) for block in blocks]
    np.testing.assert_array_equal(np.concatenate([*parts, resampler.finish()]), whole)


@pytest.mark.parametrize("rate", [8_000, 22_050, 24_000, 44_100, 48_000, 96_000])
def test_a_tone_stays_in_place(rate: int) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)
    resampler = SpeechResampler(rate)
    heard = np.concatenate([resampler.feed(tone), resampler.finish()])
    expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert np.abs(heard - expected)[200:-200].max() < 1e-3


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000])
def test_output_lags_live_input_by_less_than_130_ms(rate: int) -> None:
    resampler = SpeechResampler(rate)
    block = np.zeros(rate // 50, np.float32)
    arrived = 0
    for packet in range(1, 151):
        arrived += len(resampler.feed(block))
        assert packet * 320 - arrived < 0.130 * 16_000
