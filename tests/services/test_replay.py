"""What a replay may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.replay import most_replayed, read_replay
from visavis.runtime.errors import InvalidInput
from visavis.v1.chunk_pb2 import ChunkBorder, ChunkHeader


def read(indices: list[int], border: int, most: int = 4) -> list[int]:
    return read_replay(
        [ChunkHeader(chunk_index=index) for index in indices],
        ChunkBorder(epoch=1, chunk_index=border),
        most=most,
        header_of=lambda header: header,
        read=lambda header, field: header.chunk_index,
        field="rewind.replay",
    )


@given(st.lists(st.integers(0, 8), max_size=6), st.integers(0, 8))
def test_a_replay_is_the_last_chunks_up_to_the_border(indices: list[int], border: int) -> None:
    expected = list(range(border - len(indices) + 1, border + 1))
    if len(indices) <= 4 and indices == expected and (not indices or indices[0] >= 1):
        assert read(indices, border) == indices
        return
    with pytest.raises(InvalidInput) as refusal:
        read(indices, border)
    if len(indices) > 4:
        assert refusal.value.field == "rewind.replay"
    else:
        wrong = next(place for place, index in enumerate(indices) if expected[0] < 1 or index != expected[place])
        assert refusal.value.field == f"rewind.replay[{wrong}]"


@pytest.mark.parametrize(("reach", "chunk_bytes", "most"), [(5, 1000, 5), (28, 300_000, 10), (3, 10**9, 1)])
def test_a_replay_fits_into_a_message(reach: int, chunk_bytes: int, most: int) -> None:
    assert most_replayed(reach, chunk_bytes) == most
