"""Which models the stages have not been able to serve together, and for how long."""

from __future__ import annotations

import time
from collections.abc import Callable


class Mismatches:
    """Tells what is so from what is only so while stages start or are replaced.

    A mismatch stands once it has been seen for `settled_seconds`, the time in which every instance that lives is heard
    and every dead one forgotten, without a longer pause between two looks.
    """

    def __init__(self, settled_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._settled_seconds = settled_seconds
        self._clock = clock
        # When each was seen first and last.
        self._seen: dict[str, tuple[float, float]] = {}

    def stands(self, model: str) -> bool:
        """A mismatch is seen now; `model`: what a session needs, in any words."""
        now = self._clock()
        self._seen = {key: seen for key, seen in self._seen.items() if now - seen[1] <= self._settled_seconds}
        first, _ = self._seen.get(model, (now, now))
        self._seen[model] = (first, now)
        return now - first >= self._settled_seconds

    def none(self, model: str) -> None:
        """The stages serve it now."""
        self._seen.pop(model, None)
