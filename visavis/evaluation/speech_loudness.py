"""How loud each frame's speech is, for recordings of which nobody knows how the mouth moved.

F frames, S samples
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from visavis.contract import FRAME_RATE, SAMPLE_RATE_HZ

SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FRAME_RATE
# Relative to the loudest frame; what is quieter sounds like silence.
_RANGE_DECIBELS = 40.0
# Below this root mean square (full scale is 1) there is no speech at all.
_SILENT = 1e-4


def loudness(samples_S: npt.NDArray[np.float32], frames: int) -> npt.NDArray[np.float64]:
    """0 (40 dB below the loudest frame, or less) to 1, [F]; the speech of frame n begins at sample 640 n.

    In decibels, as lips open for a soft syllable as well.
    """
    padded = np.zeros(frames * SAMPLES_PER_FRAME)
    padded[: min(len(samples_S), len(padded))] = samples_S[: len(padded)]
    level_F = np.sqrt(np.square(padded.reshape(frames, -1)).mean(axis=1))
    if not frames or level_F.max() < _SILENT:
        return np.zeros(frames)
    decibels_F = 20 * np.log10(np.maximum(level_F / level_F.max(), 1e-6))
    return np.asarray(np.clip(1 + decibels_F / _RANGE_DECIBELS, 0, 1))
