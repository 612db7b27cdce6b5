"""The voices that speak the training sentences, each with the time of every phoneme.

piper and espeak-ng (GPL-3.0) run as programs of their own (tools/speak_*.py), never imported; flite is a command.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import soxr

from visavis.training.data.visemes import Phoneme
from visavis.training.data.voice import VoiceError, installed_voice

SAMPLE_RATE_HZ = 16_000
_TOOLS = Path(__file__).parents[3] / "tools"
# piper's marks: stress and length belong to the sound beside them, a word gap to the one before.
_MARKS = frozenset("ˈˌː")
# espeak-ng says in brackets that it changes the language for a word.
_LANGUAGE_CHANGE = re.compile(r"\(.*\)")
_IPA_OF_ARPABET = {
    "aa": "ɑ", "ae": "æ", "ah": "ʌ", "ao": "ɔ", "aw": "aʊ", "ax": "ə", "ay": "aɪ", "b": "b", "ch": "tʃ", "d": "d",
    "dh": "ð", "dx": "ɾ", "eh": "ɛ", "el": "əl", "em": "əm", "en": "ən", "er": "ɚ", "ey": "eɪ", "f": "f", "g": "ɡ",
    "hh": "h", "hv": "h", "ih": "ɪ", "iy": "i", "jh": "dʒ", "k": "k", "l": "l", "m": "m", "n": "n", "ng": "ŋ",
    "nx": "n", "ow": "oʊ", "oy": "ɔɪ", "p": "p", "r": "ɹ", "s": "s", "sh": "ʃ", "t": "t", "th": "θ", "uh": "ʊ",
    "uw": "u", "v": "v", "w": "w", "y": "j", "z": "z", "zh": "ʒ", "pau": "", "ssil": "",
}  # fmt: skip
_HOW_TO_INSTALL = {
    "piper": "pip install 'visavis[voices]'",
    "espeak": "Debian's espeak-ng",
    "flite": "Debian's flite",
}
ENGINES = tuple(_HOW_TO_INSTALL)


@dataclass(frozen=True, slots=True)
class Voice:
    """A speaker: an engine's voice at one pitch. Voices of the test split speak nowhere else."""

    name: str
    engine: str
    engine_voice: str
    language: str
    # Resampling by this factor raises pitch and formants together, like a smaller speaker.
    pitch: float
    test: bool


@dataclass(frozen=True, slots=True)
class Speech:
    """A sentence as it sounds: [S] float32 mono at 16 kHz, and when its phonemes sound (seconds)."""

    samples: npt.NDArray[np.float32]
    phonemes: tuple[Phoneme, ...]


VOICES: tuple[Voice, ...] = (
    Voice("piper-joe", "piper", "joe", "en", 1.0, False),
    Voice("piper-joe-low", "piper", "joe", "en", 0.9, False),
    Voice("piper-joe-high", "piper", "joe", "en", 1.12, False),
    Voice("piper-joe-bright", "piper", "joe", "en", 1.25, False),
    Voice("piper-joe-lowest", "piper", "joe", "en", 0.84, True),
    Voice("flite-slt", "flite", "slt", "en", 1.0, False),
    Voice("flite-slt-high", "flite", "slt", "en", 1.1, False),
    Voice("flite-rms", "flite", "rms", "en", 1.0, False),
    Voice("flite-awb", "flite", "awb", "en", 1.0, True),
    Voice("espeak-us-m3", "espeak", "en-us+m3", "en", 1.0, False),
    Voice("espeak-us-f2", "espeak", "en-us+f2", "en", 1.0, False),
    Voice("espeak-gb-m1", "espeak", "en+m1", "en", 1.0, False),
    Voice("espeak-gb-f4", "espeak", "en+f4", "en", 1.0, True),
    Voice("espeak-de-m2", "espeak", "de+m2", "de", 1.0, False),
    Voice("espeak-de-f1", "espeak", "de+f1", "de", 1.0, False),
    Voice("espeak-de-f3", "espeak", "de+f3", "de", 1.05, True),
    Voice("espeak-es-m3", "espeak", "es+m3", "es", 1.0, False),
    Voice("espeak-es-f2", "espeak", "es+f2", "es", 1.0, False),
)


class Speaker:
    """Runs the speaking programs. Use as a context manager.

    The same request gives the same speech, whatever was spoken before: piper runs without its random noise, and each
    sentence has an espeak-ng process of its own, because that engine's state leaks from one sentence into the next.
    """

    def __init__(self) -> None:
        self._programs: dict[str, subprocess.Popen[str]] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="visavis-speech-")

    def speak(self, voice: Voice, text: str, tempo: float = 1.0) -> Speech:
        """Speaks one sentence, `tempo` times as fast. Raises VoiceError when the program is missing or fails."""
        output = Path(self._folder.name) / "speech.wav"
        if voice.engine == "flite":
            phonemes = _run_flite(voice, text, tempo, output)
        else:
            phonemes = self._ask(voice, text, tempo, output)
        return _finish(output, phonemes, voice.pitch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for engine in list(self._programs):
            self._stop(engine)
        self._folder.cleanup()

    def _ask(self, voice: Voice, text: str, tempo: float, output: Path) -> list[Phoneme]:
        program = self._program(voice.engine)
        request: dict[str, object] = {"text": text, "output": str(output)}
        if voice.engine == "piper":
            request["length_scale"] = voice.pitch / tempo
        else:
            request |= {"voice": voice.engine_voice, "words_per_minute": int(165 * tempo), "pitch": 50}
        assert program.stdin is not None
        assert program.stdout is not None
        try:
            program.stdin.write(json.dumps(request) + "\n")
            program.stdin.flush()
            answer = program.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if voice.engine == "espeak" or not answer:
            self._stop(voice.engine)
        if not answer:
            raise VoiceError(f"{voice.engine} stopped: is it installed ({_HOW_TO_INSTALL[voice.engine]})?")
        reply = json.loads(answer)
        rate = float(reply["sample_rate_hz"])
        return _merge_marks([Phoneme(symbol, start / rate, end / rate) for symbol, start, end in reply["phonemes"]])

    def _stop(self, engine: str) -> None:
        with self._programs.pop(engine) as program:
            program.kill()

    def _program(self, engine: str) -> subprocess.Popen[str]:
        if engine not in self._programs:
            program = _TOOLS / f"speak_{engine}.py"
            if not program.is_file():
                raise VoiceError(f"{program.name} is missing: training voices need a clone of the repository")
            command = [sys.executable, str(program)]
            if engine == "piper":
                command.append(str(installed_voice()))
            self._programs[engine] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        return self._programs[engine]


def installed_engines() -> tuple[str, ...]:
    """Those of piper, espeak and flite whose programs are installed here."""
    found = {
        "piper": _piper_is_installed(),
        "espeak": ctypes.util.find_library("espeak-ng") is not None,
        "flite": shutil.which("flite") is not None,
    }
    return tuple(engine for engine in ENGINES if found[engine])


def voices_of(engines: Sequence[str]) -> tuple[Voice, ...]:
    """All voices of these engines. Raises ValueError for an engine that nobody knows."""
    unknown = sorted(set(engines) - set(ENGINES))
    if unknown or not engines:
        raise ValueError(f"unknown voice engines {', '.join(unknown)}: choose from {', '.join(ENGINES)}")
    return tuple(voice for voice in VOICES if voice.engine in engines)


def require_engines(engines: Sequence[str]) -> None:
    """Raises VoiceError that lists every engine that is not installed, and how to get it."""
    missing = [engine for engine in engines if engine not in installed_engines()]
    if missing:
        ways = "; ".join(f"{engine} ({_HOW_TO_INSTALL[engine]})" for engine in missing)
        raise VoiceError(f"missing voice programs: {ways}. Install them, or name the engines to use without them")


def _piper_is_installed() -> bool:
    if importlib.util.find_spec("piper") is None or importlib.util.find_spec("onnx") is None:
        return False
    try:
        return installed_voice().is_file()
    except VoiceError:
        return False


def _run_flite(voice: Voice, text: str, tempo: float, output: Path) -> list[Phoneme]:
    stretch = f"duration_stretch={1 / tempo:.3f}"
    command = ["flite", "-voice", voice.engine_voice, "--setf", stretch, "-psdur", "-t", text, "-o", str(output)]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise VoiceError("flite failed: install Debian's flite") from error
    phonemes: list[Phoneme] = []
    start = 0.0
    for symbol, end in re.findall(r"(\S+):([\d.]+)", finished.stdout):
        phonemes.append(Phoneme(_IPA_OF_ARPABET[symbol], start, float(end)))
        start = float(end)
    return phonemes


def _merge_marks(phonemes: Sequence[Phoneme]) -> list[Phoneme]:
    merged: list[Phoneme] = []
    pending: float | None = None  # where a stress mark before a sound began
    for phoneme in phonemes:
        start = phoneme.start if pending is None else pending
        if phoneme.symbol in _MARKS or _LANGUAGE_CHANGE.fullmatch(phoneme.symbol):
            pending = start
        elif phoneme.symbol == " " and merged and phoneme.end - start < 0.08:
            merged[-1] = Phoneme(merged[-1].symbol, merged[-1].start, phoneme.end)
            pending = None
        else:
            merged.append(Phoneme(phoneme.symbol, start, phoneme.end))
            pending = None
    return merged


def _finish(path: Path, phonemes: Sequence[Phoneme], pitch: float) -> Speech:
    with wave.open(str(path), "rb") as file:
        rate = file.getframerate()
        pcm = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    samples = soxr.resample(pcm.astype(np.float32) / 32768, rate * pitch, SAMPLE_RATE_HZ).astype(np.float32)
    peak = float(np.abs(samples).max(initial=0.0))
    if peak < 1e-3:
        raise VoiceError("the voice gave silence")
    timed = tuple(Phoneme(item.symbol, item.start / pitch, item.end / pitch) for item in phonemes)
    return Speech(samples * np.float32(0.7 / peak), timed)
