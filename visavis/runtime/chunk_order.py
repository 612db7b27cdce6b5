"""The order of a stage's stream: indices ascend by one, the epoch never falls, a rewind goes back in a new epoch."""

from dataclasses import dataclass
from typing import Final, Protocol

from visavis.runtime.errors import InvalidInput

# Far beyond what a session reaches (a billion years), and indices stay within 64 bits.
MAX_BORDER: Final = 2**56


class ChunkView(Protocol):
    """What the rules read of a ChunkHeader and of a ChunkBorder."""

    @property
    def epoch(self) -> int: ...

    @property
    def chunk_index(self) -> int: ...


@dataclass(frozen=True, slots=True)
class ChunkPosition:
    """The last chunk of a stream, or the border it has gone to; the start is before chunk 1 of epoch 1."""

    chunk_index: int = 0
    epoch: int = 1

    @classmethod
    def at(cls, border: ChunkView, *, field: str) -> "ChunkPosition":
        """The position of a stream that begins at a border; raises InvalidInput for an impossible one."""
        if border.epoch < 1:
            raise InvalidInput("the first epoch is 1", f"{field}.epoch")
        if border.chunk_index > MAX_BORDER:
            raise InvalidInput(f"no session has {border.chunk_index} chunks", f"{field}.chunk_index")
        return cls(border.chunk_index, border.epoch)

    def advance(self, header: ChunkView, *, field: str) -> "ChunkPosition":
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

    def go_back(self, border: ChunkView, *, field: str) -> "ChunkPosition":
        """The position after a rewind to `border`; raises InvalidInput for no new epoch or a border still to come."""
        if border.epoch <= self.epoch:
            raise InvalidInput(
                f"a rewind begins a new epoch: it was {self.epoch} and is {border.epoch}", f"{field}.epoch"
            )
        if border.chunk_index > self.chunk_index:
            raise InvalidInput(
                f"a rewind goes back: the last chunk was {self.chunk_index}, the border is {border.chunk_index}",
                f"{field}.chunk_index",
            )
        return ChunkPosition(border.chunk_index, border.epoch)
