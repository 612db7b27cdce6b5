"""The error for files that cannot be used."""


class MediaError(ValueError):
    """A file is missing, unreadable or not what it should be. The message is one line for people."""
