from collections.abc import Callable

import pytest

from services.decoder.config import check_config
from visavis.runtime.errors import InvalidInput
from visavis.v1 import decoder_pb2, media_pb2, tensor_pb2


def good_config() -> decoder_pb2.DecodeConfig:
    return decoder_pb2.DecodeConfig(
        session_id="a",
        portrait_latent=tensor_pb2.Tensor(shape=[1]),
        video_format=media_pb2.VideoFormat(codec=media_pb2.VIDEO_CODEC_JPEG, jpeg_quality=100),
    )


@pytest.mark.parametrize(
    ("codec", "jpeg_quality", "bit_rate"),
    [
        (media_pb2.VIDEO_CODEC_RAW_RGB, 0, 0),
        (media_pb2.VIDEO_CODEC_JPEG, 1, 0),
        (media_pb2.VIDEO_CODEC_JPEG, 100, 0),
        (media_pb2.VIDEO_CODEC_H264, 0, 0),
        (media_pb2.VIDEO_CODEC_H264, 0, 2_000_000),
    ],
)
def test_what_the_contract_allows_passes(
    codec: media_pb2.VideoCodec.ValueType, jpeg_quality: int, bit_rate: int
) -> None:
    config = good_config()
    config.video_format.CopyFrom(media_pb2.VideoFormat(codec=codec, jpeg_quality=jpeg_quality, bit_rate=bit_rate))
    check_config(config)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda c: c.ClearField("portrait_latent"), "config.portrait_latent"),
        (lambda c: c.ClearField("video_format"), "config.video_format.codec"),
        (lambda c: setattr(c.video_format, "codec", 17), "config.video_format.codec"),
        (lambda c: setattr(c.video_format, "jpeg_quality", 101), "config.video_format.jpeg_quality"),
        (lambda c: setattr(c.video_format, "bit_rate", 1000), "config.video_format.bit_rate"),
        (lambda c: setattr(c.video_format, "bit_rate", 4_000_000_000), "config.video_format.bit_rate"),
    ],
)
def test_what_it_does_not_allow_is_refused_by_name(
    change: Callable[[decoder_pb2.DecodeConfig], None], field: str
) -> None:
    config = good_config()
    change(config)
    with pytest.raises(InvalidInput) as caught:
        check_config(config)
    assert caught.value.field == field
