"""The voices; those that need a program run where it is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from visavis.training.data import voices
from visavis.training.data.sentences import LANGUAGES, draw_sentence
from visavis.training.data.visemes import Phoneme, sounds_of
from visavis.training.data.voice import VoiceError
from visavis.training.data.voices import ENGINES, VOICES, Speaker, Voice, installed_engines, require_engines, voices_of

INSTALLED = installed_engines()
VOICES_OF_ESPEAK = voices_of(["espeak"])


def one_voice(engine: str, language: str = "en") -> Voice:
    if engine not in INSTALLED:
        pytest.skip(f"{engine} is not installed")
    return next(voice for voice in VOICES if voice.engine == engine and voice.language == language)


def test_each_engine_has_voices_for_both_splits() -> None:
    for engine in ENGINES:
        assert {voice.test for voice in voices_of([engine])} == {False, True}


def test_every_voice_has_its_own_name_and_a_language_with_sentences() -> None:
    assert len({voice.name for voice in VOICES}) == len(VOICES)
    assert {voice.language for voice in VOICES} == set(LANGUAGES)


def test_unknown_engines_are_refused() -> None:
    with pytest.raises(ValueError, match="festival"):
        voices_of(["festival"])


def test_missing_programs_are_listed_with_the_way_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voices, "installed_engines", lambda: ("espeak",))
    with pytest.raises(VoiceError, match=r"piper .*visavis\[voices\].*flite .*Debian"):
        require_engines(ENGINES)
    require_engines(["espeak"])


def test_every_arpabet_symbol_has_a_mouth_shape() -> None:
    for symbol in voices._IPA_OF_ARPABET.values():
        sounds_of(symbol)


def test_stress_marks_and_language_changes_belong_to_the_sound_after_them() -> None:
    marked = [Phoneme("(en)", 0.0, 0.1), Phoneme("ˈ", 0.1, 0.15), Phoneme("a", 0.15, 0.3), Phoneme(" ", 0.3, 0.35)]
    assert voices._merge_marks(marked) == [Phoneme("a", 0.0, 0.35)]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_sentence_sounds_the_same_whatever_was_spoken_before(engine: str) -> None:
    voice = one_voice(engine)
    with Speaker() as speaker:
        first = speaker.speak(voice, "Papa found five thin shoes.", 1.1)
        speaker.speak(voice, "And something else.")
        again = speaker.speak(voice, "Papa found five thin shoes.", 1.1)
    np.testing.assert_array_equal(again.samples, first.samples)
    assert again.phonemes == first.phonemes


@pytest.mark.parametrize("engine", ENGINES)
def test_phonemes_fill_the_speech(engine: str) -> None:
    with Speaker() as speaker:
        speech = speaker.speak(one_voice(engine), "My brother brought warm water.")
    assert speech.phonemes[-1].end == pytest.approx(len(speech.samples) / 16_000, abs=0.05)
    assert "b" in {sound.symbol for sound in speech.phonemes}
    assert np.abs(speech.samples).max() == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize(
    ("engine", "language"), [("piper", "en"), ("flite", "en"), ("espeak", "en"), ("espeak", "de"), ("espeak", "es")]
)
def test_every_phoneme_that_the_engines_speak_has_a_mouth_shape(engine: str, language: str) -> None:
    voice = one_voice(engine, language)
    random = np.random.default_rng(0)
    text = " ".join(draw_sentence(random, language) for _ in range(12))
    with Speaker() as speaker:
        for sound in speaker.speak(voice, text).phonemes:
            sounds_of(sound.symbol)


def test_a_program_that_cannot_start_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "speak_espeak.py").write_text("raise SystemExit('no library')")
    monkeypatch.setattr(voices, "_TOOLS", tmp_path)
    with Speaker() as speaker, pytest.raises(VoiceError, match=r"espeak stopped.*espeak-ng"):
        speaker.speak(VOICES_OF_ESPEAK[0], "Hello.")


def test_an_installation_without_the_programs_says_where_they_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(voices, "_TOOLS", tmp_path)
    with Speaker() as speaker, pytest.raises(VoiceError, match="clone of the repository"):
        speaker.speak(VOICES_OF_ESPEAK[0], "Hello.")
