"""The clock of the client's player, as far as the gateway can know it."""

from __future__ import annotations

from typing import Final

from visavis.contract import FRAME_RATE

# Speech that comes at its own pace leaves no slack beyond the jitter of packets; every player buffers a frame.
_TOLERANCE_SECONDS: Final = 1 / FRAME_RATE


class PlayoutClock:
    """Assumes a player that shows each chunk as soon as the one before it has been shown.

    It starts with the first frame that is written and stands still while it has nothing to show.
    """

    def __init__(self, chunk_seconds: float) -> None:
        self._chunk_seconds = chunk_seconds
        self._dry_at: float | None = None

    @property
    def playing(self) -> bool:
        """Whether any frame has been written yet."""
        return self._dry_at is not None

    def dry_at(self, before_first_frame: float) -> float:
        """When everything written so far will have been shown; `before_first_frame` while nothing was written."""
        return before_first_frame if self._dry_at is None else self._dry_at

    def write(self, now: float) -> bool:
        """The first frame of the next chunk goes out. Gives whether the player was dry for over a frame."""
        late = self._dry_at is not None and now > self._dry_at + _TOLERANCE_SECONDS
        # Within the tolerance the plan stays: small delays add up until the player's buffer is used.
        shown_at = now if late or self._dry_at is None else self._dry_at
        self._dry_at = shown_at + self._chunk_seconds
        return late

    def stop(self, now: float) -> None:
        """The player throws away what it has not shown."""
        if self._dry_at is not None:
            self._dry_at = min(now, self._dry_at)
