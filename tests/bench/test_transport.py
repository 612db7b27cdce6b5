"""The messages whose transport is measured, the echoes, and a short run of the benchmark."""

import json
from pathlib import Path

import pytest

from visavis.bench.chunk_messages import BASE, CODECS, MINI, Codec, encoded_frames, picture_messages
from visavis.bench.transport import our_messages
from visavis.bench.transport_result import SCHEMA
from visavis.cli.main import main
from visavis.client.events import Frame
from visavis.client.formats import VideoFormat
from visavis.client.pictures import PictureDecoder
from visavis.contract import CHUNK_FRAMES
from visavis.v1.chunk_pb2 import ChunkHeader

FORMATS = {"raw": VideoFormat.raw(), "jpeg": VideoFormat.jpeg(), "h264": VideoFormat.h264()}


def test_messages_have_the_sizes_of_the_design() -> None:
    sizes = {each.name: each.message.ByteSize() for each in our_messages()}
    assert sizes["speech"] == pytest.approx(4 * (15_360 + 1_280), rel=0.01)
    assert sizes["speech latents mini"] == pytest.approx(3 * 2 * 512 * 4, rel=0.01)
    assert sizes["video latents mini"] == pytest.approx(3 * 8 * 8 * 128 * 4, rel=0.01)
    assert sizes["video latents base"] == pytest.approx(3 * 16 * 16 * 128 * 2, rel=0.01)
    assert sizes["pictures base raw"] == pytest.approx(512 * 512 * 3, rel=0.01)


@pytest.mark.parametrize("codec", CODECS)
def test_pictures_are_pictures(codec: Codec) -> None:
    frames = encoded_frames(256, codec)
    assert len(frames) == CHUNK_FRAMES
    decoded = PictureDecoder(FORMATS[codec], 256, 256).decode([Frame(data, key_frame=True) for data in frames])
    assert decoded.std() > 20


def test_pictures_are_split_as_the_decoder_splits_them() -> None:
    header = ChunkHeader(chunk_index=1)
    messages = picture_messages(header, MINI, "raw")
    assert [len(message.frames) for message in messages] == [5, 5, 5, 5, 4]
    assert [message.frame_offset for message in messages] == [0, 5, 10, 15, 20]
    assert len(picture_messages(header, BASE, "raw")) == CHUNK_FRAMES
    assert len(picture_messages(header, BASE, "jpeg")) == 1


def test_a_run_measures_every_message_over_every_way(tmp_path: Path) -> None:
    results = str(tmp_path / "results")
    assert main(["bench", "transport", "--seconds", "0.05", "--results", results]) == 0
    (path,) = (tmp_path / "results").glob("*-transport.json")
    found = json.loads(path.read_text())
    assert found["schema"] == SCHEMA
    assert [each["name"] for each in found["messages"]] == [each.name for each in our_messages()]
    for each in found["messages"]:
        for way in ("raw", "grpc_bytes", "grpc"):
            assert each[way]["round_trip_seconds"]["count"] > 0
            assert each[way]["messages_per_second"] > 0
    assert {each["name"] for each in found["chunks"]} == {f"{m} {c}" for m in ("mini", "base") for c in CODECS}
    for each in found["chunks"]:
        assert each["chunk_share"] == pytest.approx(each["grpc_seconds"] / 0.96)


def test_a_length_that_makes_no_sense_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "transport", "--seconds", "0"]) == 1
    assert "--seconds is between" in capsys.readouterr().err
