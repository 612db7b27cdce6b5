import io

import av
import numpy as np
import pytest
from PIL import Image

from services.decoder.pictures import JpegEncoder, RawEncoder, open_picture_encoder
from services.decoder.synthetic_mark import DIGITAL_SOURCE_TYPE, SEI_UUID
from tests.services.decoder.h264_reader import decoded_h264
from tests.services.decoder.patterns import SIZE, moving_pattern, psnr_db
from visavis.v1 import media_pb2


def test_raw_is_the_picture_itself() -> None:
    pictures = moving_pattern(3)
    frames = RawEncoder().encode(pictures)
    assert [
        np.frombuffer(frame.data, np.uint8).reshape(SIZE, SIZE, 3).tolist() for frame in frames
    ] == pictures.tolist()
    assert all(frame.key_frame for frame in frames)


def test_jpeg_is_close_and_says_that_it_is_synthetic() -> None:
    pictures = moving_pattern(4)
    for picture, frame in zip(pictures, JpegEncoder(95).encode(pictures), strict=True):
        image = Image.open(io.BytesIO(frame.data))
        assert psnr_db(np.asarray(image), picture) > 35
        assert DIGITAL_SOURCE_TYPE in str(image.info["xmp"])
        assert frame.key_frame


def test_jpeg_quality_changes_the_size() -> None:
    pictures = moving_pattern(1)
    low, default, high = (
        len(
            open_picture_encoder(media_pb2.VideoFormat(codec=media_pb2.VIDEO_CODEC_JPEG, jpeg_quality=q), SIZE, SIZE)
            .encode(pictures)[0]
            .data
        )
        for q in (10, 0, 100)
    )
    assert low < default < high


@pytest.mark.parametrize("bit_rate", [0, 400_000])
def test_h264_gives_one_access_unit_per_picture_and_decodes_back(bit_rate: int) -> None:
    pictures = moving_pattern(48)
    encoder = open_picture_encoder(
        media_pb2.VideoFormat(codec=media_pb2.VIDEO_CODEC_H264, bit_rate=bit_rate), SIZE, SIZE
    )
    frames = encoder.encode(pictures[:24]) + encoder.encode(pictures[24:])
    assert len(frames) == 48
    decoded = decoded_h264(frames)
    assert decoded.shape == pictures.shape
    # Each at its own place: a picture held back or swapped would match its neighbour better.
    assert min(psnr_db(one, other) for one, other in zip(decoded, pictures, strict=True)) > 30


def test_h264_is_shown_without_delay() -> None:
    context = av.CodecContext.create("h264", "r")
    frames = open_picture_encoder(media_pb2.VideoFormat(codec=media_pb2.VIDEO_CODEC_H264), SIZE, SIZE).encode(
        moving_pattern(6)
    )
    context.thread_count = 1
    shown = [len(context.decode(av.Packet(frame.data))) for frame in frames]
    assert shown == [1] * 6


def test_h264_starts_with_a_key_frame_and_repeats_it_every_two_seconds() -> None:
    frames = open_picture_encoder(media_pb2.VideoFormat(codec=media_pb2.VIDEO_CODEC_H264), SIZE, SIZE).encode(
        moving_pattern(120)
    )
    assert [index for index, frame in enumerate(frames) if frame.key_frame] == [0, 50, 100]
    late_joiner = decoded_h264(frames[50:])
    assert len(late_joiner) == 70
    assert psnr_db(late_joiner[0], moving_pattern(51)[50]) > 30


def test_h264_restarts_with_a_key_frame_that_needs_nothing_before() -> None:
    encoder = open_picture_encoder(media_pb2.VideoFormat(codec=media_pb2.VIDEO_CODEC_H264), SIZE, SIZE)
    pictures = moving_pattern(36)
    encoder.encode(pictures[:24])
    frames = encoder.encode(pictures[24:], restart=True)
    assert [frame.key_frame for frame in frames] == [True] + [False] * 11
    shown = decoded_h264(frames)
    assert min(psnr_db(one, other) for one, other in zip(shown, pictures[24:], strict=True)) > 30


def test_h264_key_frames_say_that_they_are_synthetic() -> None:
    frames = open_picture_encoder(media_pb2.VideoFormat(codec=media_pb2.VIDEO_CODEC_H264), SIZE, SIZE).encode(
        moving_pattern(51)
    )
    note = SEI_UUID.bytes + DIGITAL_SOURCE_TYPE.encode()
    assert [note in frame.data for frame in frames] == [frame.key_frame for frame in frames]
    assert frames[0].data.startswith(b"\x00\x00\x00\x01\x67")


def test_two_h264_encoders_give_the_same_bytes() -> None:
    video_format = media_pb2.VideoFormat(codec=media_pb2.VIDEO_CODEC_H264)
    pictures = moving_pattern(24)
    first, second = (
        [frame.data for frame in open_picture_encoder(video_format, SIZE, SIZE).encode(pictures)] for _ in range(2)
    )
    assert first == second
