"""The formats of the sound that a client sends and of the pictures that it gets."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from visavis.contract import FRAME_RATE
from visavis.v1 import media_pb2

_SAMPLE_TYPES: dict[media_pb2.AudioEncoding.ValueType, np.dtype[np.generic]] = {
    media_pb2.AUDIO_ENCODING_PCM_S16LE: np.dtype("<i2"),
    media_pb2.AUDIO_ENCODING_PCM_F32LE: np.dtype("<f4"),
}


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """How speech is sent; the same format comes back with the frames.

    sample_rate_hz: 8,000 to 96,000 and a multiple of 25, so that every frame holds a whole number of samples.
    channel_count: 1 or 2, interleaved.
    """

    encoding: media_pb2.AudioEncoding.ValueType
    sample_rate_hz: int
    channel_count: int

    @classmethod
    def s16(cls, sample_rate_hz: int, channel_count: int = 1) -> Self:
        """Little-endian signed 16-bit samples."""
        return cls(media_pb2.AUDIO_ENCODING_PCM_S16LE, sample_rate_hz, channel_count)

    @classmethod
    def f32(cls, sample_rate_hz: int, channel_count: int = 1) -> Self:
        """Little-endian 32-bit floats with full scale -1 to 1."""
        return cls(media_pb2.AUDIO_ENCODING_PCM_F32LE, sample_rate_hz, channel_count)

    @property
    def sample_type(self) -> np.dtype[np.generic]:
        """NumPy's type of one sample."""
        return _SAMPLE_TYPES[self.encoding]

    @property
    def bytes_per_sample(self) -> int:
        """Bytes of one sample of every channel."""
        return self.sample_type.itemsize * self.channel_count

    @property
    def samples_per_frame(self) -> int:
        """Samples that belong to one frame of video."""
        return self.sample_rate_hz // FRAME_RATE

    def samples(self, pcm: bytes) -> npt.NDArray[np.generic]:
        """PCM bytes as an array [samples, channels]. ValueError when they hold no whole number of samples."""
        if len(pcm) % self.bytes_per_sample:
            raise ValueError(f"{len(pcm)} bytes are no whole number of {self.bytes_per_sample}-byte samples")
        return np.frombuffer(pcm, self.sample_type).reshape(-1, self.channel_count)

    def to_message(self) -> media_pb2.AudioFormat:
        """The format as the contract says it."""
        return media_pb2.AudioFormat(
            encoding=self.encoding, sample_rate_hz=self.sample_rate_hz, channel_count=self.channel_count
        )


@dataclass(frozen=True, slots=True)
class VideoFormat:
    """How pictures come: raw RGB, JPEG or H.264.

    jpeg_quality: 1 to 100; 0 leaves it to the server.
    bit_rate: bits per second for H.264; 0 leaves a constant quality to the server.
    """

    codec: media_pb2.VideoCodec.ValueType
    jpeg_quality: int
    bit_rate: int

    @classmethod
    def raw(cls) -> Self:
        """8-bit RGB."""
        return cls(media_pb2.VIDEO_CODEC_RAW_RGB, 0, 0)

    @classmethod
    def jpeg(cls, quality: int = 0) -> Self:
        """One JPEG a frame."""
        return cls(media_pb2.VIDEO_CODEC_JPEG, quality, 0)

    @classmethod
    def h264(cls, bit_rate: int = 0) -> Self:
        """An H.264 byte stream, one access unit a frame."""
        return cls(media_pb2.VIDEO_CODEC_H264, 0, bit_rate)

    def to_message(self) -> media_pb2.VideoFormat:
        """The format as the contract says it."""
        return media_pb2.VideoFormat(codec=self.codec, jpeg_quality=self.jpeg_quality, bit_rate=self.bit_rate)
