"""Encodes pictures beside the decoder's own computation; PyAV and Pillow release the interpreter lock."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

Result = TypeVar("Result")


class EncodingPool(Generic[Result]):
    """A fixed set of threads; a session always uses the same one, so its pictures stay in order.

    Used by one thread. At most `capacity` jobs are pending: ask for `room` before `submit`.
    """

    def __init__(self, threads: int, capacity: int) -> None:
        self._lanes = [ThreadPoolExecutor(1, thread_name_prefix=f"pictures-{index}") for index in range(threads)]
        self._lane_of: dict[str, int] = {}
        self._capacity = capacity
        self._pending: list[tuple[str, Future[Result]]] = []

    def open(self, session_id: str) -> None:
        """Gives the session the thread that serves the fewest sessions."""
        used = list(self._lane_of.values())
        self._lane_of[session_id] = min(range(len(self._lanes)), key=used.count)

    def close(self, session_id: str) -> None:
        """Forgets the session; what it has pending is never collected."""
        self._lane_of.pop(session_id, None)
        self.drop(session_id)

    def drop(self, session_id: str) -> None:
        """What the session has pending is never collected; what runs now ends before its next job begins."""
        for owner, future in self._pending:
            if owner == session_id:
                future.cancel()
        self._pending = [job for job in self._pending if job[0] != session_id]

    @property
    def room(self) -> int:
        """How often `submit` can be called before the pool is full."""
        return max(0, self._capacity - len(self._pending))

    @property
    def is_idle(self) -> bool:
        """True when nothing is pending."""
        return not self._pending

    def submit(self, session_id: str, job: Callable[[], Result]) -> None:
        """Runs `job` after the session's earlier ones."""
        assert self.room
        self._pending.append((session_id, self._lanes[self._lane_of[session_id]].submit(job)))

    def collect(self, timeout_seconds: float = 0.0) -> list[tuple[str, Future[Result]]]:
        """Removes and returns the finished jobs, each session's in order; waits up to the timeout for one to finish."""
        if timeout_seconds and self._pending:
            wait([future for _, future in self._pending], timeout_seconds, FIRST_COMPLETED)
        finished: list[tuple[str, Future[Result]]] = []
        still_pending: list[tuple[str, Future[Result]]] = []
        behind: set[str] = set()  # a job that ends during this loop must not overtake the one before it
        for session_id, future in self._pending:
            if future.done() and session_id not in behind:
                finished.append((session_id, future))
            else:
                behind.add(session_id)
                still_pending.append((session_id, future))
        self._pending = still_pending
        return finished

    def shut_down(self) -> None:
        """Ends the threads after the jobs they run now."""
        for lane in self._lanes:
            lane.shutdown(wait=True, cancel_futures=True)
