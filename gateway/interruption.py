"""Where an interruption goes back to; pure."""

from __future__ import annotations


def border_of_interruption(
    played_samples: int | None, *, samples_per_chunk: int, last_written: int, oldest_border: int
) -> int:
    """The chunk at whose end the session goes on: the one that was playing.

    played_samples: on the session's timeline; None where all that was sent counts as played. The session never goes
    behind the last chunk that was written completely, whatever the client has played, nor before `oldest_border`.
    """
    if played_samples is None:
        return last_written
    playing = -(-played_samples // samples_per_chunk)
    return max(min(playing, last_written), oldest_border)
