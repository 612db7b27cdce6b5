"""What waits for one client, in order: pictures, bounded, and notices."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from gateway.chunk_record import ChunkRecord
from gateway.input_position import InputPosition
from gateway.timeline_output import StarvedNotice, UtteranceEndedNotice
from visavis.v1.decoder_pb2 import DecodedPictures
from visavis.v1.talking_head_pb2 import SessionEndReason

# Messages of pictures, each up to about 1 MiB, and notices that a client may cause without reading one.
PICTURES_CAPACITY: Final = 4
NOTICES_CAPACITY: Final = 64


@dataclass(frozen=True, slots=True)
class Pictures:
    """Consecutive frames of a chunk."""

    record: ChunkRecord
    pictures: DecodedPictures

    @property
    def epoch(self) -> int:
        return self.record.chunk.epoch


@dataclass(frozen=True, slots=True)
class InterruptedNotice:
    """The session went back to a border, in a new epoch."""

    epoch: int
    last_chunk_index: int
    arrived_at: float
    """When the interruption came."""


@dataclass(frozen=True, slots=True)
class DroppedNotice:
    """The client was too slow for these chunks."""

    epoch: int
    first_chunk_index: int
    last_chunk_index: int
    position: InputPosition
    """At the end of the last of them."""

    def covers(self, record: ChunkRecord) -> bool:
        """Whether a chunk is among them."""
        return self.first_chunk_index <= record.chunk.chunk_index <= self.last_chunk_index


@dataclass(frozen=True, slots=True)
class EndedNotice:
    """The last one."""

    reason: SessionEndReason.ValueType


Notice: TypeAlias = StarvedNotice | UtteranceEndedNotice | InterruptedNotice | DroppedNotice | EndedNotice
Outgoing: TypeAlias = Pictures | Notice


class Outbox:
    """A queue between the pipeline and the one who writes to the client.

    `put` waits while `PICTURES_CAPACITY` messages of pictures wait; `put_now` and `put_notice` never wait, and their
    callers bound what they put.
    """

    def __init__(self, on_depth: Callable[[int], None]) -> None:
        """on_depth: hears of every change of the number of waiting responses."""
        self._items: deque[Outgoing] = deque()
        self._pictures = 0
        self._on_depth = on_depth
        self._changed = asyncio.Event()

    async def put(self, pictures: Pictures, *, is_current: Callable[[], bool]) -> None:
        """Pictures, once there is room; they are left out when `is_current` does not hold any more then."""
        while is_current() and self._pictures >= PICTURES_CAPACITY:
            await self._change()
        if is_current():
            self.put_now(pictures)

    def put_now(self, pictures: Pictures) -> None:
        """Pictures, however many wait."""
        self._pictures += 1
        self._append(pictures)

    def put_notice(self, notice: Notice) -> None:
        """A notice, behind what waits."""
        self._append(notice)

    async def room_for_notices(self) -> None:
        """Returns once a client that does not read could be given another notice."""
        while len(self._items) - self._pictures >= NOTICES_CAPACITY:
            await self._change()

    async def get(self) -> Outgoing:
        """The next response, taken out."""
        while not self._items:
            await self._change()
        item = self._items.popleft()
        self._pictures -= isinstance(item, Pictures)
        self._note(-1)
        return item

    def go_back(self, epoch: int) -> None:
        """Forget everything of epochs before `epoch` but acknowledgements of interruptions."""
        self._keep(
            [item for item in self._items if isinstance(item, InterruptedNotice | EndedNotice) or item.epoch >= epoch]
        )

    def waiting_chunks(self) -> list[ChunkRecord]:
        """The chunks of which nothing has been taken out yet, oldest first."""
        records: dict[int, ChunkRecord] = {}
        for item in self._items:
            if isinstance(item, Pictures) and not item.record.first_frame_written:
                records[item.record.chunk.chunk_index] = item.record
        return [*records.values()]

    def drop(self, notice: DroppedNotice) -> None:
        """Put a notice in the place of chunks of which nothing has been taken out, or behind what waits."""
        kept: list[Outgoing] = []
        told = False
        for item in self._items:
            if not isinstance(item, Pictures) or not notice.covers(item.record):
                kept.append(item)
            elif not told:
                kept.append(notice)
                told = True
        if not told:
            kept.append(notice)
        self._keep(kept)

    def _append(self, item: Outgoing) -> None:
        self._items.append(item)
        self._note(1)

    def _keep(self, items: list[Outgoing]) -> None:
        change = len(items) - len(self._items)
        self._items = deque(items)
        self._pictures = sum(isinstance(item, Pictures) for item in items)
        self._note(change)

    def _note(self, change: int) -> None:
        self._on_depth(change)
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
