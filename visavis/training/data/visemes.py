"""Mouth shapes from timed phonemes: visemes with coarticulation, onto ARKit actions.

Coarticulation follows Cohen and Massaro (1993): every phoneme pulls each action towards its target with a dominance
that decays to both sides, and the curve is the dominance-weighted mean. Closures (p, b, m; f, v) are enforced after.

Legend: N phonemes, F frames, A actions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_SIDES = ("Left", "Right")


def _both(name: str, value: float) -> dict[str, float]:
    return {f"{name}{side}": value for side in _SIDES}


# Targets per viseme, for clear speech; everything not named is 0.
VISEMES: Mapping[str, Mapping[str, float]] = {
    "silence": {},
    "bilabial": {"mouthRollLower": 0.25, "mouthRollUpper": 0.15, **_both("mouthPress", 0.35)},
    "labiodental": {
        "jawOpen": 0.06,
        "mouthRollLower": 0.45,
        **_both("mouthUpperUp", 0.3),
        **_both("mouthStretch", 0.1),
    },
    "dental": {"jawOpen": 0.16, "tongueOut": 0.2, **_both("mouthLowerDown", 0.25), **_both("mouthUpperUp", 0.15)},
    "alveolar": {"jawOpen": 0.14, **_both("mouthLowerDown", 0.25), **_both("mouthStretch", 0.15)},
    "sibilant": {
        "jawOpen": 0.05,
        **_both("mouthLowerDown", 0.3),
        **_both("mouthStretch", 0.3),
        **_both("mouthUpperUp", 0.15),
    },
    "postalveolar": {"jawOpen": 0.08, "mouthFunnel": 0.45, "mouthPucker": 0.25, **_both("mouthLowerDown", 0.2)},
    "velar": {"jawOpen": 0.2, **_both("mouthLowerDown", 0.15)},
    "rhotic": {"jawOpen": 0.14, "mouthPucker": 0.4, "mouthFunnel": 0.2},
    "rounded": {"jawOpen": 0.17, "mouthPucker": 0.6, "mouthFunnel": 0.5},
    "rounded_open": {"jawOpen": 0.4, "mouthFunnel": 0.5, "mouthPucker": 0.35},
    "open": {"jawOpen": 0.64, **_both("mouthLowerDown", 0.25), **_both("mouthUpperUp", 0.3)},
    "mid": {
        "jawOpen": 0.34,
        **_both("mouthUpperUp", 0.25),
        **_both("mouthStretch", 0.2),
        **_both("mouthLowerDown", 0.2),
        **_both("mouthSmile", 0.1),
    },
    "central": {"jawOpen": 0.31, **_both("mouthLowerDown", 0.15)},
    "spread": {
        "jawOpen": 0.2,
        **_both("mouthUpperUp", 0.2),
        **_both("mouthSmile", 0.4),
        **_both("mouthStretch", 0.3),
        **_both("mouthLowerDown", 0.15),
    },
}

# IPA sound -> viseme
_IPA = {
    "bilabial": "p b m ɓ β ɸ",
    "labiodental": "f v ɱ ʋ",
    "dental": "θ ð",
    "alveolar": "t d n l ɾ r ɫ ʎ ɬ ɭ ʈ ɖ ɳ",
    "sibilant": "s z ts dz",
    "postalveolar": "ʃ ʒ tʃ dʒ ɕ ʑ ʂ ʐ",
    "velar": "k g ɡ ŋ x ɣ h ç ʔ q ɲ χ ʁ ɦ ɥ ʝ c ɟ",
    "rhotic": "ɹ ɚ ɝ ɻ",
    "rounded": "w u ʊ y ʏ ø ʍ ʉ",
    "rounded_open": "o ɔ ɒ œ",
    "open": "a ɑ æ ɐ",
    "mid": "e ɛ ɜ",
    "central": "ə ʌ ɤ ɵ ᵻ ɨ ɘ",
    "spread": "i ɪ j ʲ",
}
_BY_SOUND = {symbol: viseme for viseme, symbols in _IPA.items() for symbol in symbols.split()}
_VOWELS = frozenset({"rounded", "rounded_open", "open", "mid", "central", "spread"})
# Length, stress, syllable and nasal marks, aspiration, rhoticity: no mouth shape of their own.
_DIACRITICS = frozenset("ːˑˈˌ\u0329\u032f\u0303\u0308\u0361ʰʷ˞'_-")
_PAUSES = frozenset(" ^$.,;:?!—…")
_PARTING = ("jawOpen", "mouthFunnel", *_both("mouthLowerDown", 0.0), *_both("mouthStretch", 0.0))
_CLOSED = {"bilabial": (*_PARTING, *_both("mouthUpperUp", 0.0)), "labiodental": _PARTING}
# Seconds in which a neighbour's pull falls to 1/e, beyond the phoneme's own half.
_DECAY_SECONDS = 0.055
_JAW_LAG_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Phoneme:
    """An IPA symbol and when it sounds, in seconds; an empty symbol is a pause."""

    symbol: str
    start: float
    end: float


def sounds_of(symbol: str) -> tuple[str, ...]:
    """The sounds in an engine's IPA symbol, marks left out: "aɪ" is two, "tʃ" and "ɑː" are one, a pause is none.

    Raises ValueError for a symbol with a sound that has no viseme.
    """
    rest = "".join(character for character in symbol if character not in _DIACRITICS and character not in _PAUSES)
    sounds: list[str] = []
    while rest:
        length = 2 if rest[:2] in _BY_SOUND else 1
        if rest[:length] not in _BY_SOUND:
            raise ValueError(f"no mouth shape is known for the phoneme {symbol!r}")
        sounds.append(rest[:length])
        rest = rest[length:]
    return tuple(sounds)


def single_sounds(phonemes: Sequence[Phoneme]) -> list[Phoneme]:
    """Diphthongs and clusters taken apart, each sound with its share of the time; the first vowel has the longest."""
    singles: list[Phoneme] = []
    for phoneme in phonemes:
        sounds = sounds_of(phoneme.symbol) or ("",)
        shares = np.ones(len(sounds))
        if len(sounds) > 1 and _BY_SOUND[sounds[0]] in _VOWELS:
            shares[0] = 1.5
        ends = phoneme.start + (phoneme.end - phoneme.start) * np.cumsum(shares) / shares.sum()
        starts = [phoneme.start, *ends[:-1]]
        singles += [Phoneme(s, float(t), float(e)) for s, t, e in zip(sounds, starts, ends, strict=True)]
    return singles


def viseme_of(sound: str) -> str:
    """The viseme of one sound; a pause is silence."""
    return _BY_SOUND[sound] if sound else "silence"


def mouth_curves(phonemes: Sequence[Phoneme], frame_times: Floats, clarity: float = 1.0) -> dict[str, Floats]:
    """ARKit mouth actions at the frame times (seconds): a curve [F] in 0..1 for every action used.

    `clarity` scales how far the mouth goes (about 0.7 mumbling to 1.2 over-articulated).
    Raises ValueError for a phoneme that has no mouth shape.
    """
    actions = sorted({action for target in VISEMES.values() for action in target})
    if not phonemes:
        return {action: np.zeros_like(frame_times) for action in actions}
    phonemes = _with_silence_around(single_sounds(phonemes))
    visemes = [viseme_of(phoneme.symbol) for phoneme in phonemes]
    targets_NA = np.array([[VISEMES[viseme].get(action, 0.0) for action in actions] for viseme in visemes])
    dominance_FN = _dominance(phonemes, visemes, frame_times)
    weights_FN = dominance_FN / dominance_FN.sum(axis=1, keepdims=True)
    curves_FA = np.clip(clarity * weights_FN @ targets_NA, 0, 1)
    curves = {action: curves_FA[:, index] for index, action in enumerate(actions)}
    _close_lips(curves, phonemes, visemes, frame_times)
    return curves


def _with_silence_around(phonemes: Sequence[Phoneme]) -> list[Phoneme]:
    """Fills the gaps, and a second before and after, with silence: a mouth that does not speak is shut."""
    first, last = phonemes[0].start, phonemes[-1].end
    filled = [Phoneme("", first - 1.0, first)]
    for phoneme in phonemes:
        if phoneme.start - filled[-1].end > 0.02:
            filled.append(Phoneme("", filled[-1].end, phoneme.start))
        filled.append(phoneme)
    return [*filled, Phoneme("", last, last + 1.0)]


def _dominance(phonemes: Sequence[Phoneme], visemes: Sequence[str], frame_times: Floats) -> Floats:
    starts = np.array([phoneme.start for phoneme in phonemes])
    ends = np.array([phoneme.end for phoneme in phonemes])
    centres, halves = (starts + ends) / 2, np.maximum((ends - starts) / 2, 0.01)
    outside_FN = np.maximum(np.abs(frame_times[:, None] + _JAW_LAG_SECONDS - centres) - halves, 0)
    strength_N = np.array([_STRENGTH.get(viseme, 1.0) for viseme in visemes])
    decay_N = np.where(np.array(visemes) == "silence", 1.2 * _DECAY_SECONDS, _DECAY_SECONDS)
    background = 1e-12  # far from every phoneme the nearest one wins
    return np.asarray(strength_N * np.exp(-outside_FN / decay_N) + background, dtype=np.float64)


# Vowels and lip closures shape the mouth more than tongue consonants do.
_STRENGTH = {"bilabial": 1.6, "labiodental": 1.4, "rounded": 1.3, "velar": 0.4, "alveolar": 0.55, "silence": 0.9}


def _close_lips(
    curves: dict[str, Floats], phonemes: Sequence[Phoneme], visemes: Sequence[str], frame_times: Floats
) -> None:
    """Lips meet at least once in every bilabial, even one shorter than a frame."""
    for phoneme, viseme in zip(phonemes, visemes, strict=True):
        if viseme not in _CLOSED:
            continue
        centre = (phoneme.start + phoneme.end) / 2
        width = max((phoneme.end - phoneme.start) / 2, 0.035)
        closing = np.minimum(1.8 * np.exp(-(((frame_times - centre) / width) ** 2) * math.log(8)), 1.0)
        nearest = int(np.abs(frame_times - centre).argmin())
        if abs(frame_times[nearest] - centre) < 0.03:
            closing[nearest] = 1.0
        floor = 0.0 if viseme == "bilabial" else 0.06
        for action in _CLOSED[viseme]:
            curves[action] *= 1 - closing
            if action == "jawOpen":
                curves[action] += floor * closing
