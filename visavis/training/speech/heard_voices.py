"""Voices that the SpeechAE hears besides those of the rendered clips: many throats for the same mouths.

With the 14 training voices alone it learns them by heart: on others the explained variance fell again after 1,300 steps
(docs/log.md). No voice of the test split is among these, nor a pitch within 4 % of one of its engine's.
"""

from __future__ import annotations

from typing import Final

from visavis.training.data.voices import VOICES, Voice

_PIPER_PITCHES: Final = (0.88, 0.95, 1.06, 1.18, 1.32)
_FLITE: Final = {"kal16": (0.9, 1.0, 1.12), "rms": (0.9, 1.12), "slt": (0.92, 1.2)}
_ESPEAK_LANGUAGES: Final = {"en-us": "en", "en": "en", "de": "de", "es": "es"}
# f3 and f4 speak in tests.
_ESPEAK_VARIANTS: Final = ("f1", "f2", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8")
_ESPEAK_PITCHES: Final = (0.93, 1.0, 1.1)


def heard_voices() -> tuple[Voice, ...]:
    """The training voices of the data set and those made for hearing only; none of the test split."""
    made = [
        *(Voice(f"piper-joe-{pitch:g}", "piper", "joe", "en", pitch, False) for pitch in _PIPER_PITCHES),
        *(
            Voice(f"flite-{name}-{pitch:g}", "flite", name, "en", pitch, False)
            for name, pitches in _FLITE.items()
            for pitch in pitches
        ),
        *(
            Voice(f"espeak-{place}-{variant}-{pitch:g}", "espeak", f"{place}+{variant}", language, pitch, False)
            for place, language in _ESPEAK_LANGUAGES.items()
            for variant in _ESPEAK_VARIANTS
            for pitch in _ESPEAK_PITCHES
        ),
    ]
    return tuple(voice for voice in (*VOICES, *made) if not voice.test)
