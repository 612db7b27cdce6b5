"""A speaker without any voice program: a tone for every letter of a sentence."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import numpy as np

from visavis.training.data.visemes import Phoneme
from visavis.training.data.voices import SAMPLE_RATE_HZ, Speech, Voice

_SECONDS_A_LETTER = 0.08
_SOUNDS = frozenset("abdefhijklmnopstuvwz")


class ToneSpeaker:
    """Speaks vowels and consonants of one length; `spoken` keeps what it was asked for."""

    def __init__(self) -> None:
        self.spoken: list[tuple[str, str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def speak(self, voice: Voice, text: str, tempo: float = 1.0) -> Speech:
        self.spoken.append((voice.name, text))
        length = _SECONDS_A_LETTER / tempo
        symbols = [letter if letter in _SOUNDS else "" for letter in text.lower()]
        times = np.arange(int(length * len(symbols) * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
        samples = 0.3 * np.sin(2 * np.pi * 150 * voice.pitch * times)
        phonemes = [Phoneme(symbol, i * length, (i + 1) * length) for i, symbol in enumerate(symbols)]
        return Speech(samples.astype(np.float32), tuple(phonemes))
