"""Runs one clip of speech through a session and keeps the times.

Definitions, the same wherever these figures are shown:

- Time to first frame: from the sending of the last audio that the first chunk needs (its 0.96 s and 80 ms of lookahead,
  or the end of the speech) to the arrival of the first frame.
- A chunk is late when its first frame is not there when the player is due to show it (`playout`).
- Wall time: from the sending of the first audio to the arrival of the last frame.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from visavis.bench.playout import BUFFER_SECONDS, Player
from visavis.client.events import ChunkTiming, Segment
from visavis.client.session import TalkSession
from visavis.client.speech import Speech, paced_packets
from visavis.contract import CHUNK_SECONDS, FRAME_RATE, LOOKAHEAD_SAMPLES, SAMPLE_RATE_HZ

LOOKAHEAD_SECONDS: Final = LOOKAHEAD_SAMPLES / SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True)
class ChunkRecord:
    """One chunk as a client saw it. Seconds count from the sending of the first audio."""

    chunk_index: int
    first_frame_seconds: float
    last_frame_seconds: float
    timing: ChunkTiming


@dataclass(frozen=True, slots=True)
class SessionMeasurement:
    """One session as a client saw it."""

    speech_seconds: float
    frames: int
    time_to_first_frame_seconds: float
    wall_seconds: float
    late_chunks: int
    chunks: tuple[ChunkRecord, ...]

    @property
    def video_seconds(self) -> float:
        """Length of the video."""
        return self.frames / FRAME_RATE


async def _ignore(_segment: Segment) -> None:
    return None


async def measure_session(
    session: TalkSession,
    speech: Speech,
    *,
    fast: bool,
    packet_seconds: float = 0.04,
    on_segment: Callable[[Segment], Awaitable[None]] = _ignore,
) -> SessionMeasurement:
    """Sends all of the speech, receives to the end of the session, and hands every segment on."""
    clock = SendingClock(speech)
    packets = clock.watch(paced_packets(speech, packet_seconds=packet_seconds, fast=fast))
    session.send_in_background(packets)
    arrivals: dict[int, float] = {}
    chunks: list[ChunkRecord] = []
    frames = 0
    async for segment in session:
        now = time.perf_counter()
        frames += len(segment.frames)
        arrivals.setdefault(segment.chunk_index, now)
        if segment.timing is not None:
            first = arrivals[segment.chunk_index]
            chunks.append(ChunkRecord(segment.chunk_index, clock.since(first), clock.since(now), segment.timing))
        await on_segment(segment)
    return SessionMeasurement(
        speech_seconds=speech.seconds,
        frames=frames,
        time_to_first_frame_seconds=clock.first_chunk_wait(min(arrivals.values(), default=float("nan"))),
        wall_seconds=chunks[-1].last_frame_seconds if chunks else float("nan"),
        late_chunks=count_late(chunks),
        chunks=tuple(chunks),
    )


class SendingClock:
    """Notes when the first audio, and the last that the first chunk needs, were sent."""

    def __init__(self, speech: Speech) -> None:
        needed_seconds = min(CHUNK_SECONDS + LOOKAHEAD_SECONDS, speech.seconds)
        self._needed_bytes = round(needed_seconds * speech.sample_rate_hz) * speech.audio_format.bytes_per_sample
        self._first_packet: float | None = None
        self._first_chunk_sent: float | None = None

    async def watch(self, packets: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Passes packets through."""
        sent_bytes = 0
        async for packet in packets:
            now = time.perf_counter()
            sent_bytes += len(packet)
            if self._first_packet is None:
                self._first_packet = now
            if self._first_chunk_sent is None and sent_bytes >= self._needed_bytes:
                self._first_chunk_sent = now
            yield packet

    def since(self, moment: float) -> float:
        """Seconds from the first audio to a moment of `time.perf_counter`."""
        return moment - self._first_packet if self._first_packet is not None else float("nan")

    def first_chunk_wait(self, moment: float) -> float:
        """Seconds from the last audio that the first chunk needs to a moment of `time.perf_counter`."""
        return moment - self._first_chunk_sent if self._first_chunk_sent is not None else float("nan")


def count_late(chunks: Sequence[ChunkRecord]) -> int:
    """How many chunks arrived after their playout was due."""
    player = Player(buffer_seconds=BUFFER_SECONDS)
    return sum(player.show(each.chunk_index, each.first_frame_seconds, audio_complete=None) > 0 for each in chunks)
