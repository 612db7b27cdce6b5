"""Checks what a rewind brings: the last chunks up to its border, oldest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from visavis.runtime.errors import InvalidInput
from visavis.v1 import chunk_pb2

# What a replay may take of the 4 MiB that a message may have.
REPLAY_BYTES: Final = 3 * 1024 * 1024

Replayed = TypeVar("Replayed")
Item = TypeVar("Item")


def most_replayed(reach: int, chunk_bytes: int) -> int:
    """How many chunks of this size are replayed: as far as a state reaches back, if a message can carry them."""
    return min(reach, max(1, REPLAY_BYTES // chunk_bytes))


def read_replay(
    replay: Sequence[Replayed],
    border: chunk_pb2.ChunkBorder,
    *,
    most: int,
    header_of: Callable[[Replayed], chunk_pb2.ChunkHeader],
    read: Callable[[Replayed, str], Item],
    field: str,
) -> list[Item]:
    """Returns what `read` makes of each chunk and of the name of its field.

    Raises:
        InvalidInput: more than `most` chunks, or others than those up to `border`; and what `read` raises.
    """
    if len(replay) > most:
        raise InvalidInput(f"at most {most} chunks are replayed here, got {len(replay)}", field)
    first = border.chunk_index - len(replay) + 1
    items = []
    for place, chunk in enumerate(replay):
        name, index = f"{field}[{place}]", header_of(chunk).chunk_index
        if first < 1 or index != first + place:
            raise InvalidInput(
                f"a replay ends with chunk {border.chunk_index} and leaves none out; this is chunk {index}", name
            )
        items.append(read(chunk, name))
    return items
