"""What a face does beside speaking: blinks, gaze, brows and small head motion that follows the prosody.

Legend: F frames at 25 per second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FRAME_RATE = 25
_BLINK_SHAPE = np.array([0.4, 1.0, 0.85, 0.35, 0.1])
_BLINK_INTERVAL_SECONDS = 3.5


@dataclass(frozen=True, slots=True)
class HeadMotion:
    """Turn of the head per frame in radians [F] each (see `HeadPose`), and its shift in metres [F, 3]."""

    yaw: Floats
    pitch: Floats
    roll: Floats
    shift_F3: Floats


def speech_energy(samples: npt.NDArray[np.float32], frames: int, sample_rate_hz: int = 16_000) -> Floats:
    """Loudness per frame [F], 0 to 1: root mean square of its samples, relative to the clip's loudest tenth."""
    per_frame = sample_rate_hz // FRAME_RATE
    padded = np.zeros(frames * per_frame)
    padded[: min(len(samples), len(padded))] = samples[: len(padded)]
    energy = np.sqrt((padded.reshape(frames, per_frame) ** 2).mean(axis=1))
    loud = float(np.quantile(energy, 0.9))
    return np.asarray(np.clip(energy / loud, 0, 1) if loud > 1e-4 else np.zeros(frames), dtype=np.float64)


def eye_actions(random: np.random.Generator, frames: int, wide: float) -> dict[str, Floats]:
    """Lids and gaze [F] an action; `wide` is how far this person's eyes are open beyond the average (0 to 1)."""
    blink_F = blink_curve(random, frames)
    wide_F = wide * (1 - blink_F)
    lids = {"eyeBlinkLeft": blink_F, "eyeBlinkRight": blink_F, "eyeWideLeft": wide_F, "eyeWideRight": wide_F}
    return {**lids, **gaze_actions(random, frames)}


def blink_curve(random: np.random.Generator, frames: int) -> Floats:
    """Eye closure [F]: spontaneous blinks at exponential intervals, at least 0.6 s apart; never in the first frame."""
    curve = np.zeros(frames + len(_BLINK_SHAPE))
    position = 1 + int(random.exponential(_BLINK_INTERVAL_SECONDS) * FRAME_RATE)
    while position < frames:
        window = slice(position, position + len(_BLINK_SHAPE))
        curve[window] = np.maximum(curve[window], _BLINK_SHAPE)
        position += max(int(random.exponential(_BLINK_INTERVAL_SECONDS) * FRAME_RATE), 15)
    return curve[:frames]


def gaze_actions(random: np.random.Generator, frames: int) -> dict[str, Floats]:
    """Gaze [F] an action: saccades between fixations of about a second, within a few degrees of the camera."""
    horizontal, vertical = np.zeros(frames), np.zeros(frames)
    position = 0
    while position < frames:
        length = int(random.gamma(4.0, 0.3) * FRAME_RATE) + 5
        horizontal[position : position + length] = random.normal(0, 0.12)
        vertical[position : position + length] = random.normal(0, 0.08)
        position += length
    right, left = np.clip(horizontal, 0, 1), np.clip(-horizontal, 0, 1)
    up, down = np.clip(vertical, 0, 1), np.clip(-vertical, 0, 1)
    return {
        "eyeLookOutLeft": left, "eyeLookInRight": left, "eyeLookInLeft": right, "eyeLookOutRight": right,
        "eyeLookUpLeft": up, "eyeLookUpRight": up, "eyeLookDownLeft": down, "eyeLookDownRight": down,
    }  # fmt: skip


def brow_actions(random: np.random.Generator, energy_F: Floats) -> dict[str, Floats]:
    """Brows [F] an action: raised with stressed speech, and a slow drift of mood."""
    stress = smooth(energy_F, 9)
    raise_F = np.clip(random.uniform(0.1, 0.4) * stress + smooth_noise(random, len(energy_F), 20, 0.12), 0, 1)
    frown_F = np.clip(smooth_noise(random, len(energy_F), 25, 0.12), 0, 0.5)
    smile_F = np.clip(random.uniform(-0.1, 0.2) + smooth_noise(random, len(energy_F), 30, 0.06), 0, 0.35)
    return {
        "browInnerUp": raise_F,
        "browOuterUpLeft": 0.6 * raise_F,
        "browOuterUpRight": 0.6 * raise_F,
        "browDownLeft": frown_F,
        "browDownRight": frown_F,
        "mouthSmileLeft": smile_F,
        "mouthSmileRight": smile_F,
    }


def head_motion(random: np.random.Generator, energy_F: Floats) -> HeadMotion:
    """Small nods with the loudness and a slow sway; still moves a little in silence."""
    frames = len(energy_F)
    liveliness = 0.35 + 0.65 * smooth(energy_F, 25)
    nod = smooth(np.diff(energy_F, prepend=energy_F[:1]), 7) * random.uniform(0.02, 0.08)
    yaw = random.normal(0, 0.1) + liveliness * smooth_noise(random, frames, 19, 0.07)
    pitch = random.normal(0, 0.04) + liveliness * smooth_noise(random, frames, 15, 0.035) + nod
    roll = random.normal(0, 0.03) + liveliness * smooth_noise(random, frames, 25, 0.03)
    sway = [smooth_noise(random, frames, 41, scale) for scale in (0.003, 0.002, 0.0015)]
    return HeadMotion(np.clip(yaw, -0.35, 0.35), np.clip(pitch, -0.18, 0.18), roll, np.stack(sway, axis=1))


def smooth(curve_F: Floats, width: int) -> Floats:
    """Hann-smoothed [F], edges held."""
    window = np.hanning(width + 2)[1:-1]
    padded = np.pad(curve_F, width // 2, mode="edge")
    return np.asarray(np.convolve(padded, window / window.sum(), mode="valid")[: len(curve_F)], dtype=np.float64)


def smooth_noise(random: np.random.Generator, frames: int, width: int, scale: float) -> Floats:
    """Gaussian noise [F] smoothed over `width` frames (odd), with standard deviation about `scale`."""
    width |= 1
    noise = smooth(random.normal(size=frames + 2 * width), width)[width : width + frames]
    return np.asarray(noise * scale * np.sqrt(width / 1.5), dtype=np.float64)
