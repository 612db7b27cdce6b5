"""Messages of the decoder's contract for the tiny preset, and what its answers hold."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from tests.services.engine_driver import header, random_tensor
from visavis.models.presets import load_preset
from visavis.v1 import chunk_pb2, decoder_pb2, media_pb2, tensor_pb2

SIZE = load_preset("tiny").picture_size
RAW = media_pb2.VideoFormat(codec=media_pb2.VIDEO_CODEC_RAW_RGB)
JPEG = media_pb2.VideoFormat(codec=media_pb2.VIDEO_CODEC_JPEG, jpeg_quality=95)
H264 = media_pb2.VideoFormat(codec=media_pb2.VIDEO_CODEC_H264)


def config(
    portrait_latent: tensor_pb2.Tensor, session_id: str = "a", video_format: media_pb2.VideoFormat = RAW
) -> decoder_pb2.DecodeConfig:
    return decoder_pb2.DecodeConfig(
        session_id=session_id, portrait_latent=portrait_latent, video_format=video_format, seed=7
    )


def video(
    portrait_latent: tensor_pb2.Tensor, index: int, seed: int, *, epoch: int = 1, seconds_left: float = 0.5
) -> chunk_pb2.VideoLatents:
    shape = (3, *portrait_latent.shape[1:])
    return chunk_pb2.VideoLatents(
        header=header(index, epoch=epoch, seconds_left=seconds_left), latents=random_tensor(seed + index, shape)
    )


def raw_pictures(frames: Iterable[media_pb2.Frame]) -> npt.NDArray[np.uint8]:
    return np.stack([np.frombuffer(frame.data, np.uint8).reshape(SIZE, SIZE, 3) for frame in frames])
