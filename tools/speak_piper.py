"""Speaks sentences with piper and says when each phoneme sounds. A program of its own: piper-tts is GPL-3.0.

Reads one JSON object a line: {"text", "output", "length_scale"}; writes the WAV and answers one JSON line:
{"sample_rate_hz", "phonemes": [[ipa, first_sample, end_sample], ...]}. The voice is the only argument.
"""

from __future__ import annotations

import json
import sys
import wave

import onnxruntime
from piper import PiperVoice, SynthesisConfig


def speak(voice: PiperVoice, request: dict[str, object]) -> dict[str, object]:
    phonemes: list[tuple[str, int, int]] = []
    position = 0
    sample_rate_hz = 0
    pcm = bytearray()
    # without noise the same sentence always sounds the same
    config = SynthesisConfig(length_scale=float(str(request["length_scale"])), noise_scale=0.0, noise_w_scale=0.0)
    for sentence in voice.synthesize(str(request["text"]), syn_config=config, include_alignments=True):
        sample_rate_hz = sentence.sample_rate
        pcm += sentence.audio_int16_bytes
        for alignment in sentence.phoneme_alignments or ():
            end = position + int(alignment.num_samples)
            phonemes.append((alignment.phoneme, position, end))
            position = end
    with wave.open(str(request["output"]), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        file.writeframes(bytes(pcm))
    return {"sample_rate_hz": sample_rate_hz, "phonemes": phonemes}


class OneThread(onnxruntime.SessionOptions):  # type: ignore[misc]
    """Options as piper makes them, but several of these programs run beside renderers that have one core each."""

    def __init__(self) -> None:
        super().__init__()
        self.intra_op_num_threads = self.inter_op_num_threads = 1


def main() -> None:
    onnxruntime.SessionOptions = OneThread  # piper offers no way to pass them
    voice = PiperVoice.load(sys.argv[1], include_alignments=True)
    for line in sys.stdin:
        print(json.dumps(speak(voice, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
