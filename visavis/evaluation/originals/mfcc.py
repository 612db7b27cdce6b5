"""Mel-frequency cepstral coefficients as python_speech_features makes them with its defaults, which SyncNet hears.

S samples at 16 kHz, T windows (100 a second), K frequencies, M mel filters
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

SAMPLE_RATE_HZ = 16_000
COEFFICIENTS = 13
_WINDOW_SAMPLES, _STEP_SAMPLES = 400, 160
_FFT_SAMPLES = 512
_FILTERS = 26
_EMPHASIS = 0.97
_LIFTER = 22

Floats = npt.NDArray[np.float64]


def mfcc(samples_S: npt.NDArray[np.int16]) -> Floats:
    """[T, 13], T = 1 + ceil((S - 400) / 160); the first coefficient is the logarithm of the window's energy.

    The scale is that of 16-bit numbers. Raises ValueError for no samples or another type.
    """
    if samples_S.dtype != np.int16 or samples_S.ndim != 1 or not len(samples_S):
        raise ValueError(f"MFCC are of 16-bit mono samples, not of {samples_S.dtype} {list(samples_S.shape)}")
    signal = samples_S.astype(np.float64)
    signal[1:] -= _EMPHASIS * samples_S[:-1]
    power_TK = np.abs(np.fft.rfft(_windows(signal), _FFT_SAMPLES)) ** 2 / _FFT_SAMPLES
    cepstra_TM = np.log(_above_zero(power_TK @ _mel_filters().T)) @ _cosines().T
    lift = 1 + _LIFTER / 2 * np.sin(np.pi * np.arange(COEFFICIENTS) / _LIFTER)
    coefficients: Floats = cepstra_TM * lift
    coefficients[:, 0] = np.log(_above_zero(power_TK.sum(axis=1)))
    return coefficients


def _windows(signal_S: Floats) -> Floats:
    """[T, 400], the last one filled up with zeros; no window function."""
    count = 1 + max(0, math.ceil((len(signal_S) - _WINDOW_SAMPLES) / _STEP_SAMPLES))
    padded = np.zeros((count - 1) * _STEP_SAMPLES + _WINDOW_SAMPLES)
    padded[: len(signal_S)] = signal_S
    return np.lib.stride_tricks.sliding_window_view(padded, _WINDOW_SAMPLES)[::_STEP_SAMPLES]


def _above_zero(power: Floats) -> Floats:
    return np.where(power == 0, np.finfo(float).eps, power)


@functools.cache
def _mel_filters() -> Floats:
    """Triangles [M, K] between whole frequency bins, evenly spaced in mel from 0 to 8 kHz."""
    mel = np.linspace(0, 2595 * np.log10(1 + SAMPLE_RATE_HZ / 2 / 700), _FILTERS + 2)
    corners = np.floor((_FFT_SAMPLES + 1) * 700 * (10 ** (mel / 2595) - 1) / SAMPLE_RATE_HZ)
    bins = np.arange(_FFT_SAMPLES // 2 + 1)
    filters = np.zeros((_FILTERS, len(bins)))
    for row, (low, middle, high) in enumerate(zip(corners, corners[1:], corners[2:], strict=False)):
        rising, falling = (low <= bins) & (bins < middle), (middle <= bins) & (bins < high)
        filters[row, rising] = (bins[rising] - low) / (middle - low)
        filters[row, falling] = (high - bins[falling]) / (high - middle)
    return filters


@functools.cache
def _cosines() -> Floats:
    """The first 13 rows of the orthonormal cosine transform (type 2) of 26 numbers."""
    order, place = np.arange(COEFFICIENTS)[:, None], np.arange(_FILTERS)[None]
    cosines: Floats = np.sqrt(2 / _FILTERS) * np.cos(np.pi * order * (2 * place + 1) / (2 * _FILTERS))
    cosines[0] /= np.sqrt(2)
    return cosines
