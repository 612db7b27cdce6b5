"""The last chunks: what is kept, what is replayed, how far back a session can go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.history import MAX_REPLAY_BYTES, SessionHistory
from gateway.input_position import BEGINNING
from gateway.kept_chunk import KeptChunk
from visavis.v1.tensor_pb2 import Tensor


def kept_chunk(index: int, latent_bytes: int = 10) -> KeptChunk:
    return KeptChunk(1, 0, index, True, BEGINNING, b"samples", b"", Tensor(data=b"s"), Tensor(data=bytes(latent_bytes)))


def history_of(written: int, keep: int, in_flight: int = 0) -> SessionHistory:
    history = SessionHistory(keep)
    for index in range(1, written + in_flight + 1):
        history.add(kept_chunk(index))
    history.trim(written)
    return history


@given(st.integers(0, 40), st.integers(1, 16), st.integers(0, 3), st.integers(0, 30))
def test_a_border_to_go_back_to_has_enough_before_it(written: int, keep: int, in_flight: int, wanted: int) -> None:
    history = history_of(written, keep, in_flight)
    oldest = history.oldest_border(wanted, written)
    assert 0 <= oldest <= written
    for border in range(oldest, written + 1):
        replay = [chunk.chunk_index for chunk in history.replay(border, wanted)]
        assert replay == list(range(border - len(replay) + 1, border + 1)), "the last ones, in order"
        assert len(replay) >= min(wanted, border, keep // 2)
    if written <= keep:
        assert oldest == 0
    else:
        assert written - oldest >= min(keep - wanted, keep // 2), "it can go back"
    assert len(history.written(written)) == min(written, keep)


def test_going_back_forgets_what_is_behind() -> None:
    history = history_of(10, 12, in_flight=3)
    history.go_back(7)
    assert [chunk.chunk_index for chunk in history.written(99)] == list(range(1, 8))


def test_a_replay_fits_into_a_message() -> None:
    history = SessionHistory(12)
    for index in range(1, 13):
        history.add(kept_chunk(index, MAX_REPLAY_BYTES // 5))
    assert [chunk.chunk_index for chunk in history.replay(12, 12)] == [9, 10, 11, 12]
