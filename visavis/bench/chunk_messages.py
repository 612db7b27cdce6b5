"""The messages of one chunk as they really travel, with the sizes of each model and picture codec.

Latents are random numbers of the real shapes. Pictures are the bundled portrait, moving a little, through the codec; a
trained model's pictures are as smooth, those of random weights are noise and larger.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

import av
import numpy as np
import numpy.typing as npt
from av.video.codeccontext import VideoCodecContext
from PIL import Image

from visavis.bench.bundled import bundled_portrait
from visavis.contract import CHUNK_FRAMES, CHUNK_LATENT_FRAMES, CHUNK_SAMPLES, FRAME_RATE, LOOKAHEAD_SAMPLES
from visavis.tensors import tensor_from_numpy
from visavis.v1.audio_encoder_pb2 import SpeechChunk
from visavis.v1.chunk_pb2 import ChunkHeader, SpeechLatents, VideoLatents
from visavis.v1.decoder_pb2 import DecodedPictures
from visavis.v1.media_pb2 import Frame

Codec = Literal["raw", "jpeg", "h264"]
CODECS: Final[tuple[Codec, ...]] = ("raw", "jpeg", "h264")
# As the decoder service splits and encodes.
MESSAGE_BYTES: Final = 1 << 20
JPEG_QUALITY: Final = 90
CONSTANT_QUALITY: Final = 20


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """What decides how large messages are. bfloat16: of the video latents."""

    name: str
    picture_size: int
    latent_size: int
    speech_channels: int
    bfloat16: bool


MINI: Final = ModelSizes("mini", 256, 8, 512, bfloat16=False)
BASE: Final = ModelSizes("base", 512, 16, 2048, bfloat16=True)
SIZES: Final = {sizes.name: sizes for sizes in (MINI, BASE)}


def speech_chunk(header: ChunkHeader) -> SpeechChunk:
    """Samples and lookahead, 16 kHz float32."""
    wave = np.random.default_rng(0).standard_normal(CHUNK_SAMPLES + LOOKAHEAD_SAMPLES).astype("<f4")
    return SpeechChunk(header=header, samples=wave[:CHUNK_SAMPLES].tobytes(), lookahead=wave[CHUNK_SAMPLES:].tobytes())


def speech_latents(header: ChunkHeader, sizes: ModelSizes) -> SpeechLatents:
    """[3, 2, channels] float32."""
    latents = _noise(CHUNK_LATENT_FRAMES, 2, sizes.speech_channels)
    return SpeechLatents(header=header, latents=tensor_from_numpy(latents))


def video_latents(header: ChunkHeader, sizes: ModelSizes) -> VideoLatents:
    """[3, rows, columns, 128] in the model's type."""
    latents = _noise(CHUNK_LATENT_FRAMES, sizes.latent_size, sizes.latent_size, 128)
    return VideoLatents(header=header, latents=tensor_from_numpy(latents, bfloat16=sizes.bfloat16))


def picture_messages(header: ChunkHeader, sizes: ModelSizes, codec: Codec) -> list[DecodedPictures]:
    """A chunk's frames in messages of at most about 1 MiB."""
    messages: list[DecodedPictures] = []
    room = 0
    for index, data in enumerate(encoded_frames(sizes.picture_size, codec)):
        if len(data) > room:
            messages.append(DecodedPictures(header=header, frame_offset=index))
            room = MESSAGE_BYTES
        room -= len(data)
        messages[-1].frames.append(Frame(data=data, key_frame=True))
    messages[-1].last_in_chunk = True
    return messages


def encoded_frames(size: int, codec: Codec) -> list[bytes]:
    """The 24 pictures of one chunk, size x size."""
    pictures = list(_moving_portrait(size))
    if codec == "raw":
        return [picture.tobytes() for picture in pictures]
    if codec == "jpeg":
        return [_jpeg(picture) for picture in pictures]
    return _h264(pictures, size)


def _noise(*shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _moving_portrait(size: int) -> Iterator[npt.NDArray[np.uint8]]:
    """A window of the portrait that drifts by up to 1.5 % of its width, as a head does."""
    with Image.open(io.BytesIO(bundled_portrait())) as file:
        portrait = file.convert("RGB")
    width = portrait.width
    for index in range(CHUNK_FRAMES):
        shift = 0.015 * width * np.sin(2 * np.pi * index / CHUNK_FRAMES)
        box = (0.02 * width + shift, 0.02 * width, 0.98 * width + shift, 0.98 * width)
        window = portrait.resize((size, size), Image.Resampling.BICUBIC, box=box)
        yield np.asarray(window, np.uint8)


def _jpeg(picture: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def _h264(pictures: Sequence[npt.NDArray[np.uint8]], size: int) -> list[bytes]:
    context = av.CodecContext.create("libx264", "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height, context.pix_fmt = size, size, "yuv420p"
    context.time_base, context.framerate = Fraction(1, FRAME_RATE), Fraction(FRAME_RATE)
    context.thread_count = 1
    context.options = {"preset": "superfast", "tune": "zerolatency", "crf": str(CONSTANT_QUALITY)}
    frames = []
    for index, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
        frame.pts = index
        frames.append(b"".join(bytes(packet) for packet in context.encode(frame)))
    return frames
