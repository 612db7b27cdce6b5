"""The bundled portrait and speech, as the demo and the benchmarks use them."""

from importlib.resources import files
from pathlib import Path

import numpy as np

from visavis.client.audio_file import read_speech
from visavis.client.media_error import MediaError
from visavis.client.portrait_file import read_portrait
from visavis.client.records import Consent
from visavis.client.speech import Speech

CONSENT = Consent.synthetic_person("visavis", "rendered for the demo; no real person")


def bundled_portrait() -> bytes:
    """A JPEG. MediaError when it is not part of this installation."""
    return read_portrait(_file("portrait.jpg"))


def bundled_speech() -> Speech:
    """A sentence. MediaError when it is not part of this installation."""
    return read_speech(_file("speech.wav"))


def speech_of(seconds: float) -> Speech:
    """The bundled sentence, repeated and cut to a length."""
    sentence = bundled_speech()
    samples = round(seconds * sentence.sample_rate_hz)
    repeats = -(-samples // len(sentence.samples_SC))
    return Speech(np.tile(sentence.samples_SC, (repeats, 1))[:samples], sentence.sample_rate_hz)


def _file(name: str) -> Path:
    path = Path(str(files("visavis.demo").joinpath(name)))
    if not path.is_file():
        raise MediaError(f"{name} of the demo is not part of this installation; run from a checkout")
    return path
