"""A clip of speech in memory, and its packets as a live text-to-speech engine would send them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from visavis.client.formats import AudioFormat


@dataclass(frozen=True, slots=True)
class Speech:
    """Speech in a format that a session accepts.

    samples_SC: int16 [samples, channels].
    """

    samples_SC: npt.NDArray[np.int16]
    sample_rate_hz: int

    @property
    def audio_format(self) -> AudioFormat:
        """The format to open a session with."""
        return AudioFormat.s16(self.sample_rate_hz, self.samples_SC.shape[1])

    @property
    def seconds(self) -> float:
        """How long the speech is."""
        return len(self.samples_SC) / self.sample_rate_hz

    @property
    def pcm(self) -> bytes:
        """All of it as a session sends it."""
        return self.samples_SC.astype("<i2", copy=False).tobytes()


async def paced_packets(speech: Speech, *, packet_seconds: float = 0.04, fast: bool = False) -> AsyncIterator[bytes]:
    """Cuts speech into packets and gives each at the time when its sound would have been spoken; `fast` gives all at
    once. Packet k comes no earlier than the end of its sound, as a live engine cannot know it before.

    packet_seconds: 20 to 100 ms is usual for live engines.
    """
    if packet_seconds <= 0:
        raise ValueError("a packet must be longer than 0 s")
    samples = max(1, round(packet_seconds * speech.sample_rate_hz))
    clock = asyncio.get_running_loop().time
    begin = clock()
    for start in range(0, speech.samples_SC.shape[0], samples):
        piece = speech.samples_SC[start : start + samples]
        if not fast:
            await asyncio.sleep(begin + (start + len(piece)) / speech.sample_rate_hz - clock())
        yield piece.astype("<i2", copy=False).tobytes()
