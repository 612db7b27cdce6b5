"""The player that late chunks are counted with: pure, every time is an argument.

It shows each chunk right behind the one before it, beginning `buffer_seconds` after the first frame of the first chunk
has arrived. A chunk that is not there when it is due is late: the picture stands still until it comes, and everything
behind it moves by as much. A chunk whose audio was complete only after the player had run dry (the speaker paused) is
not late: playout begins anew with it.
"""

from __future__ import annotations

from typing import Final

from visavis.contract import CHUNK_SECONDS, FRAME_RATE

# Every player holds a frame, and most hold more. The buffer is used up once and not renewed, so a server slower than
# real time is always found out.
BUFFER_SECONDS: Final = 1 / FRAME_RATE


class Player:
    """Shows the chunks of one session. Times are seconds of any one clock.

    stalled_seconds: how long the picture stood still so far.
    due: when the next chunk has to be there; None before the first and after an interruption.
    """

    def __init__(self, *, buffer_seconds: float) -> None:
        self.stalled_seconds = 0.0
        self.due: float | None = None
        self._buffer_seconds = buffer_seconds
        self._chunk_index = 0

    def show(self, chunk_index: int, arrived: float, *, audio_complete: float | None) -> float:
        """The first frame of the next chunk has arrived. Returns by how much it was late, 0 for one in time.

        audio_complete: when the last audio was due that the chunk needs; None for an idle chunk, which needs none.
        """
        self._chunk_index = chunk_index
        if self.due is None or (audio_complete is not None and audio_complete >= self.due):
            self.due = arrived + self._buffer_seconds + CHUNK_SECONDS
            return 0.0
        late = max(0.0, arrived - self.due)
        self.stalled_seconds += late
        self.due += late + CHUNK_SECONDS
        return late

    def interrupt(self) -> None:
        """Throws away what has not been shown; the next chunk begins playout anew."""
        self.due = None

    def played_seconds(self, now: float) -> float:
        """How much of the session's timeline has been shown by now."""
        if self.due is None:
            return self._chunk_index * CHUNK_SECONDS
        return max(0.0, self._chunk_index * CHUNK_SECONDS - max(0.0, self.due - now))
