"""The chunk borders that a session can go back to: its states there, which are immutable values."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from typing import Final, Generic, Literal, TypeVar, get_args

State = TypeVar("State")
Item = TypeVar("Item")

# How a session got to a border: its state was kept; it is computed from a replay; nothing was there but the start.
Way = Literal["kept", "replayed", "started_again"]
# What became of it: the state that it would be, kept or rebuilt, or one that knows less of the past.
Exactness = Literal["kept", "rebuilt", "approximate"]

MIN_KEPT: Final = 2
MAX_KEPT: Final = 8
# Of one session, where the number is left open.
KEPT_BYTES: Final = 64 * 1024 * 1024

logger = logging.getLogger(__name__)


def kept_borders(setting: int, state_bytes: int) -> int:
    """How many borders before the last one are kept: as set, or (0) what fits into 64 MiB, from 2 to 8."""
    return setting or max(MIN_KEPT, min(MAX_KEPT, KEPT_BYTES // max(state_bytes, 1)))


class Borders(Generic[State, Item]):
    """Where a session stands: behind chunk `chunk_index`, in `state`; and what leads there while it is rebuilt.

    While `replay` holds items, the session is being rebuilt: the engine takes them one by one, computes the state after
    each, and hands it to `move_on`.
    """

    def __init__(self, start: State, kept: int) -> None:
        """`start`: before chunk 1; kept for good. `kept`: borders kept beside the start and the last one."""
        self.state = start
        self.chunk_index = 0
        self.replay: deque[Item] = deque()
        self._start = start
        self._kept: deque[tuple[int, State]] = deque([(0, start)], maxlen=kept + 1)

    @property
    def states(self) -> list[State]:
        """The state here and those kept, each once."""
        kept = [state for _, state in self._kept]
        return kept if any(state is self.state for state in kept) else [*kept, self.state]

    def move_on(self, state: State) -> None:
        """The next chunk is done; `state` is the one behind it."""
        self.state = state
        self.chunk_index += 1
        if not self.replay:  # the states on the way of a rebuild are worse than a rebuild of their own
            self._kept.append((self.chunk_index, state))

    def go_to(self, chunk_index: int, replay: Sequence[Item]) -> Way:
        """Goes to the border behind a chunk; `replay`: the items of the last chunks up to it, oldest first.

        Later borders are forgotten. What is neither kept nor replayed is the start, as far from the truth as that is.
        """
        self.replay.clear()
        while self._kept and self._kept[-1][0] > chunk_index:
            self._kept.pop()
        if chunk_index == 0:
            self._kept = deque([(0, self._start)], maxlen=self._kept.maxlen)
        if self._kept and self._kept[-1][0] == chunk_index:
            self.chunk_index, self.state = self._kept[-1]
            return "kept"
        self._kept.clear()
        self.state = self._start
        self.chunk_index = chunk_index - len(replay)
        self.replay.extend(replay)
        if replay:
            return "replayed"
        self._kept.append((chunk_index, self.state))
        return "started_again"

    def jump_to(self, chunk_index: int, state: State) -> None:
        """Goes to a border whose state came from elsewhere."""
        self.replay.clear()
        self._kept.clear()
        self.state, self.chunk_index = state, chunk_index
        self._kept.append((chunk_index, state))


class BorderLog:
    """How sessions got to their borders: in the log, with a warning where that was less than exact, and counted."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = dict.fromkeys(get_args(Exactness), 0)

    @property
    def counts(self) -> dict[str, int]:
        """Since the start, by `Exactness`; a copy."""
        return dict(self._counts)

    def note(self, session_id: str, chunk_index: int, way: Way, replayed: int, replay_chunks: int) -> None:
        """A session goes to a border; `replayed` of the `replay_chunks` that its state depends on are there."""
        whole = replayed >= min(chunk_index, replay_chunks)
        exactness: Exactness = "kept" if way == "kept" else "rebuilt" if whole else "approximate"
        self._counts[exactness] += 1
        fields = {"session_id": session_id, "chunk_index": chunk_index, "way": way, "replayed": replayed}
        level = logging.WARNING if exactness == "approximate" else logging.INFO
        logger.log(level, "the session goes to a border", extra=fields)
