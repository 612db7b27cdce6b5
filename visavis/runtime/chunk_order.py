"""The order of chunks in a stage's stream: indices ascend by one, the epoch never falls."""

from dataclasses import dataclass
from typing import Protocol

from visavis.runtime.errors import InvalidInput


class ChunkHeaderView(Protocol):
    """What the rule reads of a ChunkHeader."""

    @property
    def epoch(self) -> int: ...

    @property
    def chunk_index(self) -> int: ...


@dataclass(frozen=True, slots=True)
class ChunkPosition:
    """The last chunk of a stream; the start is before chunk 1 of epoch 1."""

    chunk_index: int = 0
    epoch: int = 1

    def advance(self, header: ChunkHeaderView, *, field: str) -> "ChunkPosition":
        """The position after a chunk; raises InvalidInput when the chunk does not follow this one."""
        if header.chunk_index != self.chunk_index + 1:
            raise InvalidInput(
                f"chunk_index must be {self.chunk_index + 1}, one more than before; it is {header.chunk_index}",
                f"{field}.header.chunk_index",
            )
        if header.epoch < self.epoch:
            raise InvalidInput(
                f"epoch must not fall: it was {self.epoch} and is {header.epoch}", f"{field}.header.epoch"
            )
        return ChunkPosition(header.chunk_index, header.epoch)
