"""The last chunks of one session: what rebuilds its stages, and bounds how far back it can go."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gateway.kept_chunk import KeptChunk

# A rewind is one message; with 4 MiB allowed, this leaves room for what else is in it.
MAX_REPLAY_BYTES: Final = 3 * 1024 * 1024


class SessionHistory:
    """Chunks by their index, without gaps but at most one: a resumed session may begin behind a stale checkpoint."""

    def __init__(self, keep_chunks: int, kept: Iterable[KeptChunk] = ()) -> None:
        """keep_chunks: how many stay behind the last one written."""
        self._keep_chunks = keep_chunks
        self._chunks = {chunk.chunk_index: chunk for chunk in kept}

    def add(self, chunk: KeptChunk) -> None:
        """The next chunk enters the pipeline."""
        self._chunks[chunk.chunk_index] = chunk

    def go_back(self, border: int) -> None:
        """Forget what is behind chunk `border`."""
        for index in [index for index in self._chunks if index > border]:
            del self._chunks[index]

    def trim(self, last_written: int) -> None:
        """Forget what is too old, counted from the last chunk that the client got."""
        for index in [index for index in self._chunks if index <= last_written - self._keep_chunks]:
            del self._chunks[index]

    def oldest_border(self, replay_chunks: int, last_written: int) -> int:
        """The oldest border to go back to: at most the last one written.

        Before it lie all chunks there ever were, or `replay_chunks`, or half of what is kept: a stage that wants more
        has the last borders itself, or is rebuilt approximately.
        """
        first = min(self._chunks, default=last_written + 1)
        if first == 1:
            return 0
        return min(last_written, first - 1 + min(replay_chunks, self._keep_chunks // 2))

    def written(self, last_written: int) -> list[KeptChunk]:
        """What is kept of the chunks that the client got, oldest first."""
        return [self._chunks[index] for index in sorted(self._chunks) if index <= last_written]

    def replay(self, border: int, replay_chunks: int) -> list[KeptChunk]:
        """The last chunks up to `border`, oldest first, at most `replay_chunks` and what one message takes."""
        indices = [index for index in sorted(self._chunks, reverse=True) if index <= border]
        replay: list[KeptChunk] = []
        byte_count = 0
        for index in indices[:replay_chunks]:
            chunk = self._chunks[index]
            byte_count += _size(chunk)
            if byte_count > MAX_REPLAY_BYTES:
                break
            replay.insert(0, chunk)
        return replay


def _size(chunk: KeptChunk) -> int:
    latents = sum(len(tensor.data) for tensor in (chunk.speech, chunk.video) if tensor is not None)
    return len(chunk.samples) + len(chunk.lookahead) + latents
