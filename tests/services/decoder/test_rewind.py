"""What the picture codec does at a border: frames that the client has are skipped, and a key frame begins."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch

from services.decoder.engine import DecoderEngine
from tests.services.decoder.h264_reader import decoded_h264
from tests.services.decoder.messages import H264, RAW, config, video
from tests.services.engine_driver import outputs_of, run_dry
from tests.services.generator.messages import portrait_latent
from tests.services.tiny_settings import decoder_settings
from visavis.runtime.errors import InvalidInput
from visavis.v1 import chunk_pb2, decoder_pb2, media_pb2

SEED = 100
PORTRAIT = portrait_latent()


@pytest.fixture(scope="module")
def warm_engine() -> DecoderEngine:
    torch.set_num_threads(1)
    engine = DecoderEngine(decoder_settings(kept_borders=2))
    engine.warm_up()
    return engine


@pytest.fixture
def engine(warm_engine: DecoderEngine) -> Iterator[DecoderEngine]:
    yield warm_engine
    warm_engine.close("a")


def submit(engine: DecoderEngine, *indices: int, epoch: int = 1) -> None:
    for index in indices:
        engine.submit("a", video(PORTRAIT, index, SEED, epoch=epoch), time.monotonic())


def pictures(engine: DecoderEngine) -> list[decoder_pb2.DecodedPictures]:
    return outputs_of(run_dry(engine), "a", decoder_pb2.DecodedPictures)


def frames(engine: DecoderEngine) -> list[media_pb2.Frame]:
    return [frame for message in pictures(engine) for frame in message.frames]


def rewind(index: int, *, epoch: int = 2, skip_frames: int = 0, replayed: int = 0) -> decoder_pb2.DecodeRewind:
    border = chunk_pb2.ChunkBorder(epoch=epoch, chunk_index=index)
    replay = [video(PORTRAIT, chunk, SEED) for chunk in range(index - replayed + 1, index + 1)]
    return decoder_pb2.DecodeRewind(border=border, replay=replay, skip_frames=skip_frames)


@pytest.mark.parametrize("how", ["rewind", "resume"])
@pytest.mark.parametrize("skipped", [1, 7, 23])
def test_frames_that_the_client_has_are_decoded_but_not_sent(engine: DecoderEngine, how: str, skipped: int) -> None:
    engine.open("a", config(PORTRAIT, "a", RAW))
    submit(engine, 1, 2, 3, 4)
    whole = frames(engine)
    if how == "rewind":
        engine.rewind("a", rewind(2, skip_frames=skipped))
    else:
        engine.close("a")
        resumed = config(PORTRAIT, "a", RAW)
        resumed.resume.CopyFrom(rewind(2, skip_frames=skipped, replayed=2))
        engine.open("a", resumed)
    submit(engine, 3, 4, epoch=2)
    answers = pictures(engine)
    assert [frame for answer in answers for frame in answer.frames] == whole[48 + skipped :]
    assert answers[0].frame_offset == skipped
    assert [answer.last_in_chunk for answer in answers].count(True) == 2
    assert next(answer for answer in answers if answer.header.chunk_index == 4).frame_offset == 0


def test_a_rewind_begins_with_a_key_frame_that_needs_nothing_before(engine: DecoderEngine) -> None:
    engine.open("a", config(PORTRAIT, "a", H264))
    submit(engine, 1, 2)
    frames(engine)
    engine.rewind("a", rewind(1, skip_frames=5))
    submit(engine, 2, epoch=2)
    after = frames(engine)
    assert [place for place, frame in enumerate(after) if frame.key_frame] == [0]
    assert len(decoded_h264(after)) == len(after) == 19


def test_a_resumed_stream_begins_with_a_key_frame(engine: DecoderEngine) -> None:
    resumed = config(PORTRAIT, "a", H264)
    resumed.resume.CopyFrom(rewind(9, epoch=1, replayed=2))
    engine.open("a", resumed)
    submit(engine, 10)
    after = frames(engine)
    assert after[0].key_frame
    assert len(decoded_h264(after)) == 24


def test_pictures_restart_where_frames_were_dropped_on_their_way(engine: DecoderEngine) -> None:
    engine.open("a", config(PORTRAIT, "a", H264))
    submit(engine, 1)
    restarted = video(PORTRAIT, 2, SEED)
    restarted.header.restart_pictures = True
    engine.submit("a", restarted, time.monotonic())
    submit(engine, 3)
    found = frames(engine)
    assert [place for place, frame in enumerate(found) if frame.key_frame] == [0, 24]
    assert len(decoded_h264(found[24:])) == 48


@pytest.mark.parametrize("steps", range(5))
def test_pictures_of_before_are_dropped_also_while_they_are_encoded(engine: DecoderEngine, steps: int) -> None:
    engine.open("a", config(PORTRAIT, "a", H264))
    submit(engine, 1, 2, 3)
    before = [answer for _ in range(steps) for answer in outputs_of([*engine.step()], "a", decoder_pb2.DecodedPictures)]
    engine.rewind("a", rewind(0))
    submit(engine, 1, epoch=2)
    after = pictures(engine)
    assert {answer.header.epoch for answer in before} <= {1}
    assert {answer.header.epoch for answer in after} == {2}
    assert sum(len(answer.frames) for answer in after) == 24
    assert after[0].frames[0].key_frame


def test_not_all_frames_can_be_skipped(engine: DecoderEngine) -> None:
    engine.open("a", config(PORTRAIT, "a", RAW))
    with pytest.raises(InvalidInput) as refusal:
        engine.rewind("a", rewind(0, skip_frames=24))
    assert refusal.value.field == "rewind.skip_frames"
