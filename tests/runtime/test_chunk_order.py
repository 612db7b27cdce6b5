"""The order of chunks, as a pure rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.runtime.chunk_order import ChunkPosition
from visavis.runtime.errors import InvalidInput
from visavis.v1.chunk_pb2 import ChunkBorder, ChunkHeader


@given(st.lists(st.integers(min_value=0, max_value=3), max_size=20))
def test_ascending_indices_and_rising_epochs_are_accepted(rises: list[int]) -> None:
    position, epoch = ChunkPosition(), 1
    for index, rise in enumerate(rises, start=1):
        epoch += rise
        position = position.advance(ChunkHeader(chunk_index=index, epoch=epoch), field="chunk")
    assert position == ChunkPosition(len(rises), epoch)


@given(st.integers(0, 2**32), st.integers(0, 2**32))
def test_any_other_index_is_refused(last: int, index: int) -> None:
    header = ChunkHeader(chunk_index=index, epoch=1)
    if index == last + 1:
        assert ChunkPosition(last, 1).advance(header, field="chunk").chunk_index == index
        return
    with pytest.raises(InvalidInput) as refusal:
        ChunkPosition(last, 1).advance(header, field="speech")
    assert refusal.value.field == "speech.header.chunk_index"


@pytest.mark.parametrize(("last_epoch", "epoch"), [(1, 0), (3, 2), (2**63, 1)])
def test_a_falling_epoch_is_refused(last_epoch: int, epoch: int) -> None:
    with pytest.raises(InvalidInput) as refusal:
        ChunkPosition(4, last_epoch).advance(ChunkHeader(chunk_index=5, epoch=epoch), field="chunk")
    assert refusal.value.field == "chunk.header.epoch"


@given(st.integers(0, 50), st.integers(1, 5), st.integers(0, 60), st.integers(0, 8))
def test_a_rewind_goes_back_in_a_new_epoch(last: int, epoch: int, border_index: int, border_epoch: int) -> None:
    position = ChunkPosition(last, epoch)
    border = ChunkBorder(chunk_index=border_index, epoch=border_epoch)
    if border_index <= last and border_epoch > epoch:
        assert position.go_back(border, field="rewind.border") == ChunkPosition(border_index, border_epoch)
        return
    with pytest.raises(InvalidInput) as refusal:
        position.go_back(border, field="rewind.border")
    assert refusal.value.field == ("rewind.border.chunk_index" if border_epoch > epoch else "rewind.border.epoch")


def test_a_stream_begins_at_a_possible_border() -> None:
    assert ChunkPosition.at(ChunkBorder(chunk_index=7, epoch=3), field="border") == ChunkPosition(7, 3)
    for border, field in (
        (ChunkBorder(chunk_index=7), "epoch"),
        (ChunkBorder(chunk_index=2**63, epoch=1), "chunk_index"),
    ):
        with pytest.raises(InvalidInput) as refusal:
            ChunkPosition.at(border, field="border")
        assert refusal.value.field == f"border.{field}"
