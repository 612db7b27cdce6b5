"""Session ids: they name Redis keys, log entries and engine state, so their alphabet is small."""

import re
import secrets

from visavis.runtime.errors import InvalidInput

_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")


def new_session_id() -> str:
    """128 random bits, URL-safe."""
    return secrets.token_urlsafe(16)


def check_session_id(text: str, *, field: str = "config.session_id") -> str:
    """The id itself; raises InvalidInput for anything but 1 to 64 letters, digits, hyphens and underscores."""
    if _PATTERN.fullmatch(text) is None:
        raise InvalidInput("session_id must be 1 to 64 letters, digits, hyphens or underscores", field)
    return text
