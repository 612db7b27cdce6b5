"""What the client's speech looks like in bytes, and what of it is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from visavis.contract import (
    CHUNK_FRAMES,
    FRAME_RATE,
    MAX_AUDIO_BYTES,
    MAX_CLIENT_SAMPLE_RATE_HZ,
    MIN_CLIENT_SAMPLE_RATE_HZ,
)
from visavis.runtime.errors import InvalidInput
from visavis.v1 import media_pb2

_SAMPLE_TYPES: Final[dict[media_pb2.AudioEncoding.ValueType, np.dtype[Any]]] = {
    media_pb2.AUDIO_ENCODING_PCM_S16LE: np.dtype("<i2"),
    media_pb2.AUDIO_ENCODING_PCM_F32LE: np.dtype("<f4"),
}
SUPPORTED_ENCODINGS: Final = tuple(_SAMPLE_TYPES)


@dataclass(frozen=True, slots=True)
class PcmFormat:
    """A checked `AudioFormat`. A sample here is one instant of all channels."""

    encoding: media_pb2.AudioEncoding.ValueType
    sample_rate_hz: int
    channel_count: int

    @property
    def bytes_per_sample(self) -> int:
        return _SAMPLE_TYPES[self.encoding].itemsize * self.channel_count

    @property
    def samples_per_frame(self) -> int:
        """Samples that belong to one picture; whole, because the rate is a multiple of 25."""
        return self.sample_rate_hz // FRAME_RATE

    @property
    def samples_per_chunk(self) -> int:
        return self.samples_per_frame * CHUNK_FRAMES

    def check_block(self, pcm: bytes) -> None:
        """Refuse a block that is empty, over 1 MiB or ends inside a sample. Errors: `InvalidInput`."""
        if not pcm:
            raise InvalidInput("audio.pcm is empty; send at least one sample", "audio.pcm")
        if len(pcm) > MAX_AUDIO_BYTES:
            raise InvalidInput(f"audio.pcm holds {len(pcm)} bytes; a message takes {MAX_AUDIO_BYTES}", "audio.pcm")
        if len(pcm) % self.bytes_per_sample:
            raise InvalidInput(
                f"audio.pcm holds {len(pcm)} bytes, no whole number of samples of {self.bytes_per_sample} bytes"
                f" ({self.channel_count} channels)",
                "audio.pcm",
            )

    def mono(self, pcm: bytes) -> NDArray[np.float32]:
        """What the model hears of a block: `[samples]`, full scale -1 to 1, channels averaged, clipped.

        Errors: `InvalidInput` as `check_block`, and for NaN and infinity.
        """
        self.check_block(pcm)
        samples = np.frombuffer(pcm, dtype=_SAMPLE_TYPES[self.encoding])
        if self.encoding == media_pb2.AUDIO_ENCODING_PCM_S16LE:
            wide: NDArray[np.float32] = samples.astype(np.float32) / np.float32(32768)
        else:
            if not np.isfinite(samples).all():
                raise InvalidInput("audio.pcm contains NaN or infinity", "audio.pcm")
            wide = np.clip(samples.astype(np.float32), -1, 1)
        if self.channel_count == 1:
            return wide
        mono: NDArray[np.float32] = wide.reshape(-1, self.channel_count).mean(axis=1, dtype=np.float32)
        return mono


def parse_audio_format(message: media_pb2.AudioFormat) -> PcmFormat:
    """Check the client's `AudioFormat`. Errors: `InvalidInput` that names the field."""
    if message.encoding not in _SAMPLE_TYPES:
        raise InvalidInput("audio_format.encoding must be PCM_S16LE or PCM_F32LE", "config.audio_format.encoding")
    rate = message.sample_rate_hz
    if not MIN_CLIENT_SAMPLE_RATE_HZ <= rate <= MAX_CLIENT_SAMPLE_RATE_HZ or rate % FRAME_RATE:
        raise InvalidInput(
            f"audio_format.sample_rate_hz is {rate}; it must be a multiple of {FRAME_RATE}"
            f" from {MIN_CLIENT_SAMPLE_RATE_HZ} to {MAX_CLIENT_SAMPLE_RATE_HZ}",
            "config.audio_format.sample_rate_hz",
        )
    channel_count = message.channel_count or 1
    if channel_count > 2:
        raise InvalidInput(
            f"audio_format.channel_count is {channel_count}; it must be 1 or 2", "config.audio_format.channel_count"
        )
    return PcmFormat(message.encoding, rate, channel_count)
