"""Writes videos as people's cameras do: any frame rate, size, sample rate and container."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.float32]

_AUDIO_BLOCK = 1024


def write_video(
    path: Path,
    frames_FHW3: Pixels,
    samples_S: Samples | None,
    *,
    frame_rate: Fraction = Fraction(25),
    sample_rate_hz: int = 48_000,
    channels: int = 2,
    sound_delay_seconds: float = 0.0,
) -> Path:
    """H.264 4:2:0 at `frame_rate`, and sound [S] at `sample_rate_hz` (AAC), in the container that the suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as container:
        video: Any = container.add_stream("libx264", rate=frame_rate, options={"crf": "14", "preset": "veryfast"})
        video.height, video.width = frames_FHW3.shape[1:3]
        video.pix_fmt = "yuv420p"
        video.codec_context.thread_count = 1
        audio: Any = None
        if samples_S is not None:
            audio = container.add_stream("aac", rate=sample_rate_hz)
            audio.layout = "stereo" if channels == 2 else "mono"
        for number, pixels in enumerate(frames_FHW3):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, 1 / frame_rate
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if samples_S is not None:
            _write_sound(container, audio, np.tile(samples_S, (channels, 1)), sample_rate_hz, sound_delay_seconds)
    return path


def _write_sound(container: Any, audio: Any, samples_CS: Samples, sample_rate_hz: int, delay_seconds: float) -> None:
    delay = round(delay_seconds * sample_rate_hz)
    for start in range(0, samples_CS.shape[1], _AUDIO_BLOCK):
        block = np.ascontiguousarray(samples_CS[:, start : start + _AUDIO_BLOCK])
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=audio.layout.name)
        frame.sample_rate, frame.pts, frame.time_base = sample_rate_hz, start + delay, Fraction(1, sample_rate_hz)
        container.mux(audio.encode(frame))
    container.mux(audio.encode())


def resample_frames(frames_FHW3: Pixels, frame_rate: Fraction) -> Pixels:
    """Frames at 25 per second shown at another rate."""
    count = int(len(frames_FHW3) * frame_rate / 25)
    return frames_FHW3[[min(int(number * 25 / frame_rate), len(frames_FHW3) - 1) for number in range(count)]]


def in_the_middle(frames_FHW3: Pixels, height: int, width: int, side: int) -> Pixels:
    """Pictures drawn `side` wide in the middle of larger grey ones."""
    larger = np.full((len(frames_FHW3), height, width, 3), 110, dtype=np.uint8)
    top, left = (height - side) // 2, (width - side) // 2
    for number, pixels in enumerate(frames_FHW3):
        resized = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
        larger[number, top : top + side, left : left + side] = np.asarray(resized)
    return larger
