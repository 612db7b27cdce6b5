"""The right to resume a session, as a client holds it: the session's id and a secret."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from visavis.runtime.errors import InvalidInput
from visavis.runtime.session_id import check_session_id

_FIELD = "resume.resume_token"


@dataclass(frozen=True, slots=True)
class ResumeToken:
    """Show it to its client and to nobody else; what is stored is the hash."""

    session_id: str
    secret: str

    @classmethod
    def draw(cls, session_id: str) -> ResumeToken:
        """A new one: 256 random bits."""
        return cls(session_id, secrets.token_urlsafe(32))

    @classmethod
    def parse(cls, text: str) -> ResumeToken:
        """Reads what `text` gave. Errors: `InvalidInput` for anything else."""
        session_id, dot, secret = text.partition(".")
        if not dot or not secret or len(text) > 200:
            raise InvalidInput("resume_token is none that a session gave", _FIELD)
        return cls(check_session_id(session_id, field=_FIELD), secret)

    @property
    def text(self) -> str:
        return f"{self.session_id}.{self.secret}"

    @property
    def hash(self) -> str:
        """SHA-256 of the secret, hex."""
        return hashlib.sha256(self.secret.encode()).hexdigest()
