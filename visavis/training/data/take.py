"""What a clip's person does: speech with its phonemes on the clip's time line, and every action's curve.

Frame 0 is the portrait at -40 ms; sample 0 belongs to frame 1, and frame n covers samples [640 (n-1), 640 n).

Legend: F frames, S samples, A actions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from visavis.training.data.clip_plan import ClipPlan
from visavis.training.data.makehuman import Floats
from visavis.training.data.performance import (
    FRAME_RATE,
    HeadMotion,
    brow_actions,
    eye_actions,
    head_motion,
    speech_energy,
)
from visavis.training.data.visemes import Phoneme, mouth_curves
from visavis.training.data.voices import SAMPLE_RATE_HZ, Speech, Voice

SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FRAME_RATE


class SpeaksSentences(Protocol):
    """Whoever turns a sentence into speech."""

    def speak(self, voice: Voice, text: str, tempo: float = 1.0) -> Speech: ...


@dataclass(frozen=True, slots=True)
class Take:
    """Everything that moves and sounds in one clip. Samples [640 (F-1)] float32 at 16 kHz; phoneme times in seconds."""

    samples_S: npt.NDArray[np.float32]
    phonemes: tuple[Phoneme, ...]
    curves: Mapping[str, Floats]
    head: HeadMotion


def perform(plan: ClipPlan, voices: Sequence[Voice], speaker: SpeaksSentences, frames: int, eye_width: float) -> Take:
    """Performs a plan in `frames` frames. Raises VoiceError when a voice fails."""
    random = np.random.default_rng([0x74616B65, plan.seed, plan.index])
    samples_S, phonemes = _speak(plan, voices, speaker, (frames - 1) * SAMPLES_PER_FRAME)
    energy_F = np.concatenate([[0.0], speech_energy(samples_S, frames - 1)])
    # the middle of the time that a frame is shown
    frame_times = (np.arange(frames) - 0.5) / FRAME_RATE
    mouth = mouth_curves(phonemes, frame_times, plan.clarity)
    for curve in mouth.values():
        curve[0] = 0.0  # a portrait's mouth is shut, whatever sound comes next
    curves = {**brow_actions(random, energy_F), **eye_actions(random, frames, eye_width)}
    for action, curve in mouth.items():
        curves[action] = np.clip(curves.get(action, 0.0) + curve, 0, 1)
    noise_S = random.normal(0, 1, len(samples_S)).astype(np.float32) * np.float32(plan.noise)
    return Take(np.clip(samples_S + noise_S, -1, 1), phonemes, curves, head_motion(random, energy_F))


def _speak(
    plan: ClipPlan, voices: Sequence[Voice], speaker: SpeaksSentences, length: int
) -> tuple[npt.NDArray[np.float32], tuple[Phoneme, ...]]:
    """The sentences one after the other with their pauses, cut where the clip ends."""
    samples_S = np.zeros(length, dtype=np.float32)
    phonemes: list[Phoneme] = []
    position = 0
    for sentence, pause in zip(plan.sentences, plan.pauses, strict=True):
        position += int(pause * SAMPLE_RATE_HZ)
        if position >= length:
            break
        voice = next(voice for voice in voices if voice.name == plan.voice)
        speech = speaker.speak(voice, sentence, plan.tempo)
        heard = speech.samples[: length - position]
        samples_S[position : position + len(heard)] = heard
        start = position / SAMPLE_RATE_HZ
        phonemes += [Phoneme(sound.symbol, start + sound.start, start + sound.end) for sound in speech.phonemes]
        position += len(speech.samples)
    return samples_S, tuple(phoneme for phoneme in phonemes if phoneme.start < length / SAMPLE_RATE_HZ)
