"""Times and shares for people, the same in the terminal and on the page."""

import math


def milliseconds(seconds: float) -> str:
    """A dash for what does not exist."""
    if math.isnan(seconds):
        return "–"
    return f"{seconds * 1000:.0f} ms" if abs(seconds) >= 0.01 or seconds == 0 else f"{seconds * 1000:.1f} ms"


def percent(share: float) -> str:
    """A dash for what does not exist."""
    return "–" if math.isnan(share) else f"{share:.2%}"
