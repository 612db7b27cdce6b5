import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.decoder.segments import split_chunk
from visavis.v1 import chunk_pb2, media_pb2

HEADER = chunk_pb2.ChunkHeader(epoch=2, chunk_index=7)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=24), st.integers(1, 1000))
def test_every_frame_comes_once_in_order_and_messages_stay_small(sizes: list[int], limit: int) -> None:
    frames = [media_pb2.Frame(data=bytes([index]) * size, key_frame=True) for index, size in enumerate(sizes)]
    timing = chunk_pb2.StageTiming()
    timing.computed.seconds = 3
    messages = split_chunk(HEADER, frames, timing, limit)
    assert [frame for message in messages for frame in message.frames] == frames
    offsets = [message.frame_offset for message in messages]
    assert offsets == [sum(len(message.frames) for message in messages[:index]) for index in range(len(messages))]
    assert all(message.header == HEADER for message in messages)
    assert all(len(m.frames) == 1 or sum(len(f.data) for f in m.frames) <= limit for m in messages)
    assert [message.last_in_chunk for message in messages] == [False] * (len(messages) - 1) + [True]
    assert [message.HasField("timing") for message in messages] == [False] * (len(messages) - 1) + [True]


def test_raw_512_frames_stay_within_one_mebibyte_a_message() -> None:
    frames = [media_pb2.Frame(data=bytes(512 * 512 * 3), key_frame=True)] * 24
    messages = split_chunk(HEADER, frames, chunk_pb2.StageTiming())
    assert len(messages) == 24
    assert max(message.ByteSize() for message in messages) < 1 << 20


def test_a_chunk_without_frames_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        split_chunk(HEADER, [], chunk_pb2.StageTiming())
