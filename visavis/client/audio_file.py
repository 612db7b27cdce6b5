"""Reads speech from any audio file that FFmpeg knows: WAV, MP3, FLAC, OGG and more (needs PyAV)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import av
import numpy as np
import numpy.typing as npt

from visavis.client.media_error import MediaError
from visavis.client.speech import Speech
from visavis.contract import FRAME_RATE, MAX_CLIENT_SAMPLE_RATE_HZ, MIN_CLIENT_SAMPLE_RATE_HZ

FALLBACK_SAMPLE_RATE_HZ: Final = 48_000
MAX_SECONDS: Final = 3600.0


def read_speech(path: Path | str) -> Speech:
    """Decodes a file's first audio stream to 16-bit samples.

    Mono and stereo stay as they are, more channels become mono; a rate that a session refuses becomes 48 kHz.
    Raises MediaError for a missing file, a file without sound or one over an hour.
    """
    try:
        with av.open(str(path), mode="r") as container:
            if not container.streams.audio:
                raise MediaError(f"{path} has no sound in it")
            stream = container.streams.audio[0]
            rate = _accepted_rate(stream.rate)
            channels = stream.channels if stream.channels in (1, 2) else 1
            resampler = av.AudioResampler("s16", "stereo" if channels == 2 else "mono", rate)
            samples_SC = _decode(container, stream, resampler, channels, path)
    except FileNotFoundError as error:
        raise MediaError(f"{path} does not exist") from error
    except (av.error.FFmpegError, OSError) as error:
        raise MediaError(f"{path} cannot be read as an audio file ({error.strerror})") from error
    if samples_SC.shape[0] == 0:
        raise MediaError(f"{path} holds no sound (0 samples)")
    return Speech(samples_SC, rate)


def _accepted_rate(sample_rate_hz: int) -> int:
    possible = MIN_CLIENT_SAMPLE_RATE_HZ <= sample_rate_hz <= MAX_CLIENT_SAMPLE_RATE_HZ
    accepted = possible and sample_rate_hz % FRAME_RATE == 0
    return sample_rate_hz if accepted else FALLBACK_SAMPLE_RATE_HZ


def _decode(
    container: "av.container.InputContainer",
    stream: "av.AudioStream",
    resampler: "av.AudioResampler",
    channels: int,
    path: Path | str,
) -> npt.NDArray[np.int16]:
    pieces: list[npt.NDArray[np.int16]] = []
    total = 0
    for piece in _pieces(container, stream, resampler, channels):
        pieces.append(piece)
        total += len(piece)
        if total > MAX_SECONDS * resampler.rate:
            raise MediaError(f"{path} is longer than {MAX_SECONDS / 60:.0f} minutes")
    return np.concatenate(pieces) if pieces else np.empty((0, channels), np.int16)


def _pieces(
    container: "av.container.InputContainer",
    stream: "av.AudioStream",
    resampler: "av.AudioResampler",
    channels: int,
) -> Iterator[npt.NDArray[np.int16]]:
    for frame in container.decode(stream):
        for resampled in resampler.resample(frame):
            yield resampled.to_ndarray().astype(np.int16, copy=False).reshape(-1, channels)
    for resampled in resampler.resample(None):
        yield resampled.to_ndarray().astype(np.int16, copy=False).reshape(-1, channels)
