"""Admission: the sessions a process can hold at once. Full is an answer, not a queue."""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from visavis.runtime.errors import CapacityExhausted, Draining, VisavisError


class Slot:
    """A stream's hold on its session's place; `with slot:` lets go at the end, `free` earlier. Twice is fine."""

    def __init__(self, pool: "SlotPool", session_id: str, evict: Callable[[VisavisError], None] | None) -> None:
        self._pool = pool
        self.session_id = session_id
        self.evict = evict

    def free(self) -> None:
        self._pool.take_back(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.free()


class SlotPool:
    """Hands out slots; the authority on this process's capacity. `changed` is set at every change and at draining.

    A slot is a session's: the stream that resumes a session shares it with the one that was left behind, until that
    has ended.
    """

    def __init__(self, slots: int, *, retry_after_seconds: float) -> None:
        self.slots = slots
        self.changed = asyncio.Event()
        self._retry_after_seconds = retry_after_seconds
        self._taken: set[Slot] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = asyncio.Event()
        self._drain_ends = 0.0

    @property
    def draining(self) -> bool:
        return self._draining.is_set()

    @property
    def drain_seconds_left(self) -> float:
        """Until running sessions are ended; only while draining."""
        return max(0.0, self._drain_ends - time.monotonic())

    async def wait_draining(self) -> None:
        """Returns when draining has begun."""
        await self._draining.wait()

    @property
    def used_slots(self) -> int:
        return len(self._sessions)

    def claim(self, session_id: str, evict: Callable[[VisavisError], None] | None = None) -> Slot:
        """Takes a session's slot at once; raises CapacityExhausted or Draining. `evict` ends the stream when asked."""
        if self.draining:
            raise Draining("this instance is shutting down; another one may serve you", 0.0)
        sessions = self._sessions
        if session_id not in sessions and len(sessions) >= self.slots:
            raise CapacityExhausted(f"all {self.slots} slots are taken; try again later", self._retry_after_seconds)
        slot = Slot(self, session_id, evict)
        self._taken.add(slot)
        self._note_change()
        return slot

    def limit(self, slots: int) -> None:
        """Lowers the number of slots to what turned out to fit; running sessions stay."""
        self.slots = min(self.slots, slots)
        self._note_change()

    def drain(self, seconds: float = 0.0) -> None:
        """Takes no new sessions from now on; running ones may go on for `seconds`."""
        self._drain_ends = time.monotonic() + seconds
        self._draining.set()
        self._note_change()

    def evict_all(self, error: VisavisError) -> None:
        """Ends the running sessions with `error`."""
        for slot in list(self._taken):
            if slot.evict is not None:
                slot.evict(error)

    async def wait_idle(self) -> None:
        """Returns when no slot is taken."""
        await self._idle.wait()

    def take_back(self, slot: Slot) -> None:
        if slot in self._taken:
            self._taken.remove(slot)
            self._note_change()

    @property
    def _sessions(self) -> set[str]:
        return {slot.session_id for slot in self._taken}

    def _note_change(self) -> None:
        if self._taken:
            self._idle.clear()
        else:
            self._idle.set()
        self.changed.set()
