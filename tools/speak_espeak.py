"""Speaks sentences with espeak-ng and says when each phoneme sounds. A program of its own: espeak-ng is GPL-3.0.

Reads one JSON object a line: {"text", "output", "voice", "words_per_minute", "pitch"}; writes the WAV and answers one
JSON line: {"sample_rate_hz", "phonemes": [[ipa, first_sample, end_sample], ...]}. Needs Debian's libespeak-ng1.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import sys
import wave

_SYNCHRONOUS = 2
_PHONEME_EVENTS_IN_IPA = 0x0003
_UTF8 = 1
_EVENT_END = 0
_EVENT_PHONEME = 7
_RATE, _PITCH = 1, 3


class _Identifier(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Identifier),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Espeak:
    """The library, set up to hand back samples and phoneme events."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1")
        self.sample_rate_hz = int(self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEME_EVENTS_IN_IPA))
        if self.sample_rate_hz <= 0:
            raise SystemExit("espeak-ng cannot start: install Debian's espeak-ng")
        self._pcm = bytearray()
        self._starts: list[tuple[int, str]] = []
        self._callback = _Callback(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(self, request: dict[str, object]) -> dict[str, object]:
        self._pcm.clear()
        self._starts.clear()
        if self._library.espeak_SetVoiceByName(str(request["voice"]).encode()) != 0:
            raise SystemExit(f"espeak-ng has no voice {request['voice']}")
        self._library.espeak_SetParameter(_RATE, int(str(request["words_per_minute"])), 0)
        self._library.espeak_SetParameter(_PITCH, int(str(request["pitch"])), 0)
        text = str(request["text"]).encode()
        self._library.espeak_Synth(text, len(text) + 1, 0, 1, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        with wave.open(str(request["output"]), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(self.sample_rate_hz)
            file.writeframes(bytes(self._pcm))
        ends = [start for start, _ in self._starts[1:]] + [len(self._pcm) // 2]
        phonemes = [(name, start, end) for (start, name), end in zip(self._starts, ends, strict=True)]
        return {"sample_rate_hz": self.sample_rate_hz, "phonemes": phonemes}

    def _receive(self, samples: object, count: int, events: object) -> int:
        if samples and count > 0:
            self._pcm.extend(ctypes.string_at(samples, count * 2))  # type: ignore[arg-type]
        index = 0
        while events[index].type != _EVENT_END:  # type: ignore[index]
            event = events[index]  # type: ignore[index]
            if event.type == _EVENT_PHONEME:
                name = event.id.string.split(b"\0")[0].decode("utf-8", "ignore")
                self._starts.append((event.audio_position * self.sample_rate_hz // 1000, name))
            index += 1
        return 0


def main() -> None:
    espeak = Espeak()
    for line in sys.stdin:
        print(json.dumps(espeak.speak(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
