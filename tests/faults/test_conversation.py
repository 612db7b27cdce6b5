"""Whom a frame shows is recognised: one frame of another session is found, whatever the codec."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from services.decoder.h264 import H264Encoder
from tests.faults.conversation import Persona, Pictures, check_pictures
from tests.faults.history import History, Rule
from visavis.contract import CHUNK_FRAMES
from visavis.v1 import media_pb2
from visavis.v1.media_pb2 import Frame
from visavis.v1.talking_head_pb2 import SessionResumed, TalkResponse, VideoSegment

SIZE = 64
FRAMES = 3 * CHUNK_FRAMES
RAW = media_pb2.VIDEO_CODEC_RAW_RGB
H264 = media_pb2.VIDEO_CODEC_H264
# Inside the second chunk, and not where a key frame is.
SPOILT = 30


def noise(seed: int) -> Pictures:
    """Pictures of blocks, about as far from one another as those of two personas."""
    blocks = np.random.default_rng(seed).integers(90, 166, (FRAMES, SIZE // 4, SIZE // 4, 3), dtype=np.uint8)
    return blocks.repeat(4, axis=1).repeat(4, axis=2)


PERSONAS = [Persona(f"persona {number}", f"avatar {number}", number, noise(number)) for number in range(3)]
OWN, OTHER = PERSONAS[:2]


def said(persona: Persona) -> Pictures:
    """Its pictures while it says something: near to the record, not equal to it."""
    change = np.random.default_rng(9).integers(-16, 17, persona.pictures_NHW3.shape)
    return (persona.pictures_NHW3 + change).clip(0, 255).astype(np.uint8)


def raw(pictures: Pictures) -> list[Frame]:
    return [Frame(data=picture.tobytes()) for picture in pictures]


def h264(pictures: Pictures) -> list[Frame]:
    return H264Encoder(SIZE, SIZE, 0).encode(pictures)


def history_of(frames: list[Frame], resumed_at: int | None = None) -> History:
    """A session in segments of ten frames, resumed once where `resumed_at` says."""
    history = History(bytes_per_sample=2, samples_per_frame=4)
    for first in range(0, len(frames), 10):
        if resumed_at == first:
            history.receive(TalkResponse(resumed=SessionResumed(next_frame_index=first + 1)))
        segment = VideoSegment(first_frame_index=first + 1, frames=frames[first : first + 10])
        history.receive(TalkResponse(segment=segment))
    return history


def found(history: History, codec: media_pb2.VideoCodec.ValueType) -> list[tuple[Rule, str]]:
    violations = check_pictures(history, codec, OWN, PERSONAS)
    return [(violation.rule, violation.detail.partition(":")[0]) for violation in violations]


@pytest.mark.parametrize(("codec", "encode"), [(RAW, raw), (H264, h264)], ids=["raw", "H.264"])
def test_one_frame_of_another_session_is_found(
    codec: media_pb2.VideoCodec.ValueType, encode: Callable[[Pictures], list[Frame]]
) -> None:
    pictures = said(OWN)
    assert found(history_of(encode(pictures)), codec) == []
    pictures[SPOILT - 1] = said(OTHER)[SPOILT - 1]
    swapped = [(Rule.IDENTITY, f"frame {SPOILT} of persona 0 shows persona 1")]
    assert found(history_of(encode(pictures)), codec) == swapped
    assert found(history_of(encode(pictures), resumed_at=20), codec) == swapped, "not even behind a resumption"


@pytest.mark.parametrize(("codec", "encode"), [(RAW, raw), (H264, h264)], ids=["raw", "H.264"])
def test_a_frame_that_shows_nobody_is_excused_behind_a_resumption_only(
    codec: media_pb2.VideoCodec.ValueType, encode: Callable[[Pictures], list[Frame]]
) -> None:
    pictures = said(OWN)
    pictures[SPOILT - 1] = noise(99)[SPOILT - 1]
    nobody = [(Rule.IDENTITY, f"frame {SPOILT} of persona 0 shows nobody")]
    assert found(history_of(encode(pictures)), codec) == nobody
    assert found(history_of(encode(pictures), resumed_at=20), codec) == []
    assert found(history_of(encode(pictures), resumed_at=0), codec) == nobody


def test_frames_at_a_wrong_place_are_not_the_sessions() -> None:
    assert len(found(history_of(raw(said(OWN)[::-1])), RAW)) == FRAMES


def test_h264_that_begins_inside_a_group_of_pictures_does_not_decode() -> None:
    frames = h264(said(OWN))
    assert [rule for rule, _ in found(history_of(frames[1:]), H264)] == [Rule.ORDER]
