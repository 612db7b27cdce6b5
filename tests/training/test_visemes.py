"""From timed phonemes to mouth shapes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.training.data.body import Body, lip_gap
from visavis.training.data.visemes import VISEMES, Phoneme, mouth_curves, single_sounds, sounds_of, viseme_of

FRAME_TIMES = (np.arange(50) - 0.5) / 25
SYMBOLS = ("p", "b", "m", "f", "ɑː", "i", "u", "t", "s", "aɪ", "tʃ", "ɹ", "θ", "", "k", "oʊ")


def spell(symbols: list[str], length: float = 0.09, start: float = 0.3) -> list[Phoneme]:
    return [Phoneme(symbol, start + i * length, start + (i + 1) * length) for i, symbol in enumerate(symbols)]


@pytest.mark.parametrize(
    ("symbol", "sounds"),
    [
        ("aɪ", ("a", "ɪ")),
        ("tʃ", ("tʃ",)),
        ("ɑː", ("ɑ",)),
        ("oːɹ", ("o", "ɹ")),
        ("ˈə", ("ə",)),
        ("", ()),
        ("^", ()),
        (".", ()),
    ],
)
def test_symbols_are_taken_apart_into_sounds(symbol: str, sounds: tuple[str, ...]) -> None:
    assert sounds_of(symbol) == sounds


def test_a_phoneme_without_a_mouth_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="ǃ"):
        sounds_of("ǃ")


def test_a_diphthong_keeps_its_time() -> None:
    parts = single_sounds([Phoneme("aɪ", 1.0, 1.2)])
    assert [part.symbol for part in parts] == ["a", "ɪ"]
    assert parts[0].start == 1.0
    assert parts[0].end == parts[1].start
    assert parts[1].end == pytest.approx(1.2)


@given(st.lists(st.sampled_from(SYMBOLS), min_size=1, max_size=15), st.floats(0.03, 0.2), st.floats(0.6, 1.3))
def test_curves_stay_between_nothing_and_all(symbols: list[str], length: float, clarity: float) -> None:
    for curve in mouth_curves(spell(symbols, length), FRAME_TIMES, clarity).values():
        assert curve.shape == FRAME_TIMES.shape
        assert curve.min() >= 0
        assert curve.max() <= 1


@pytest.mark.parametrize("closure", ["p", "b", "m"])
@pytest.mark.parametrize("vowel", ["ɑ", "i", "u", "o", "ɛ"])
@pytest.mark.parametrize("length", [0.04, 0.1])
def test_lips_meet_in_every_bilabial_and_part_in_vowels(body: Body, closure: str, vowel: str, length: float) -> None:
    phonemes = spell([vowel, closure, vowel, closure, vowel], length)
    gap = lip_gap(body.figure({}).pose(mouth_curves(phonemes, FRAME_TIMES)))
    for sound in phonemes:
        nearest = int(np.abs(FRAME_TIMES - (sound.start + sound.end) / 2).argmin())
        if sound.symbol == closure:
            assert gap[nearest] < 0.0005
    assert gap.max() > (0.001 if length < 0.05 else 0.002)  # fast speech opens less


def test_a_mouth_that_does_not_speak_is_shut(body: Body) -> None:
    gap = lip_gap(body.figure({}).pose(mouth_curves(spell(["ɑ", "s", "ɑ"], start=1.0), FRAME_TIMES)))
    silent = (FRAME_TIMES < 0.75) | (FRAME_TIMES > 1.55)
    assert gap[silent].max() < 0.0005
    assert gap.max() > 0.005


def test_no_phonemes_leave_the_mouth_at_rest() -> None:
    assert all(not curve.any() for curve in mouth_curves([], FRAME_TIMES).values())


def test_wide_vowels_open_the_jaw_more_than_narrow_ones() -> None:
    widest = {vowel: mouth_curves(spell([vowel]), FRAME_TIMES)["jawOpen"].max() for vowel in ("ɑ", "ɛ", "i")}
    assert widest["ɑ"] > widest["ɛ"] > widest["i"]


def test_every_viseme_is_reached_by_some_sound() -> None:
    reached = {viseme_of(sound) for sound in (*"pfθtsʃkɹuoaɛəi", "")}
    assert reached == set(VISEMES)
