"""Which chunks a client that reads too slowly will never get; pure."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.chunk_record import ChunkRecord
from visavis.v1.decoder_pb2 import DecodedPictures


class SlowReader:
    """Drops to the newest chunk once one has waited too long after its playout was due.

    What follows a gap must begin with a key frame: chunks are refused until one does.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._needs_key_frame = False
        self._refusing = False

    def refuses(self, pictures: DecodedPictures, *, first: bool) -> bool:
        """Whether pictures cannot be shown for want of those before; first: of their chunk."""
        if first:
            self._refusing = self._needs_key_frame and not pictures.frames[0].key_frame
            self._needs_key_frame = self._refusing
        return self._refusing

    def chunks_to_drop(self, waiting: Sequence[ChunkRecord], now: float) -> list[ChunkRecord]:
        """Of complete chunks of which the client has nothing yet, oldest first: those to drop, consecutive."""
        if len(waiting) < 2 or now <= waiting[0].chunk.due_at + self._seconds:
            return []
        self._needs_key_frame = not waiting[-1].begins_with_key_frame
        return list(waiting if self._needs_key_frame else waiting[:-1])

    def go_back(self) -> None:
        """A new epoch begins with a key frame."""
        self._needs_key_frame = self._refusing = False
