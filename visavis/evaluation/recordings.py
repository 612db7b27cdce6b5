"""Recorded human speech, as the models hear it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

from visavis.client.audio_file import read_speech
from visavis.client.media_error import MediaError
from visavis.contract import SAMPLE_RATE_HZ
from visavis.evaluation.errors import EvaluationError

_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg")
_FULL_SCALE = 32_768


def read_recordings(folder: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Every sound file of a folder by its name: mono, 16 kHz, -1 to 1. Raises EvaluationError for none or a bad one."""
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise EvaluationError(f"no recordings ({', '.join(_SUFFIXES)}) in {folder}")
    try:
        return {path.name: _read(path) for path in paths}
    except MediaError as error:
        raise EvaluationError(str(error)) from error


def _read(path: Path) -> npt.NDArray[np.float32]:
    speech = read_speech(path)
    mono_S = speech.samples_SC.mean(axis=1, dtype=np.float32) / np.float32(_FULL_SCALE)
    resampled = soxr.resample(mono_S, speech.sample_rate_hz, SAMPLE_RATE_HZ, quality="HQ")
    return np.asarray(resampled, dtype=np.float32)
