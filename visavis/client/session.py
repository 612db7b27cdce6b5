"""One session: speech goes in, a talking face comes out."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import numpy as np
import numpy.typing as npt

from visavis.client.errors import ClientError, SessionClosed
from visavis.client.events import Event, Segment, SessionEnded, event_from_message
from visavis.client.formats import AudioFormat, VideoFormat
from visavis.client.pictures import PictureDecoder
from visavis.client.records import SessionStart
from visavis.client.resumable_stream import ResumableStream
from visavis.v1 import talking_head_pb2

MAX_PACKET_BYTES: Final = 256 * 1024


class TalkSession:
    """An open session; made by `VisavisClient.talk`.

    Speech and video flow at the same time: send from one task and iterate in another (`send_in_background` does the
    first). The server stops reading 8 MiB of speech ahead of a reader that does not read.

    A connection or gateway that breaks is replaced: the session goes on at the frame behind the last one received, and
    `events` gives a `Resumed`. An error is raised only when that fails for the server's whole resume window.
    """

    def __init__(
        self, stream: ResumableStream, start: SessionStart, audio_format: AudioFormat, video_format: VideoFormat
    ) -> None:
        self.start: Final = start
        self.audio_format: Final = audio_format
        self.video_format: Final = video_format
        self._stream = stream
        self._decoder: PictureDecoder | None = None
        self._sender: asyncio.Task[None] | None = None
        self._source_error: Exception | None = None
        self._ended: SessionEnded | None = None

    @property
    def ended(self) -> SessionEnded | None:
        """The server's last word, once it was received."""
        return self._ended

    async def send(self, pcm: bytes | npt.NDArray[np.generic]) -> None:
        """Sends speech: PCM bytes in the session's audio format, or an array [samples] or [samples, channels] of its
        type. Waits while the server is too far behind.

        Raises ValueError for an array of another type or channel count, SessionClosed after the session's end, and
        the server's error when the session failed.
        """
        data = pcm if isinstance(pcm, bytes) else self._bytes_of(pcm)
        packet = MAX_PACKET_BYTES // self.audio_format.bytes_per_sample * self.audio_format.bytes_per_sample
        for start in range(0, max(len(data), 1), packet):
            audio = talking_head_pb2.AudioInput(pcm=data[start : start + packet])
            await self._write(talking_head_pb2.TalkRequest(audio=audio))

    async def end_utterance(self) -> None:
        """Says that the utterance is complete, so that its last chunk need not wait for more speech."""
        message = talking_head_pb2.EndOfUtterance()
        await self._write(talking_head_pb2.TalkRequest(end_of_utterance=message))

    async def interrupt(self, played_samples: int | None = None) -> None:
        """Drops what was not played. `Interrupted` says when, and where the session goes on.

        played_samples: how much was played, on the session's timeline in its sample rate, so that the face goes on from
        what was seen. None: everything that was received.
        """
        message = talking_head_pb2.Interrupt(played_samples=played_samples)
        await self._write(talking_head_pb2.TalkRequest(interrupt=message))

    async def end(self) -> None:
        """Says that no speech follows; what is pending is rendered and iteration ends after it."""
        message = talking_head_pb2.EndOfAudio()
        await self._write(talking_head_pb2.TalkRequest(end_of_audio=message))

    def send_in_background(self, packets: AsyncIterator[bytes], *, end: bool = True) -> None:
        """Starts a task that sends every packet and the end of the utterance, and with `end` ends the session.

        An error of `packets` ends the session and is raised to whoever iterates. RuntimeError while one is running.
        """
        if self._sender is not None and not self._sender.done():
            raise RuntimeError("the session is already sending in the background")
        self._sender = asyncio.create_task(self._send_all(packets, end))

    async def events(self) -> AsyncIterator[Event]:
        """Segments and notices, in the server's order, to the end of the session.

        Raises the typed error of a failed session.
        """
        while self._ended is None:
            try:
                message = await self._stream.receive()
            except ClientError as error:
                if self._source_error is not None:  # the cause of the closed stream, not its consequence
                    raise self._source_error from error
                raise
            event = event_from_message(message)
            if isinstance(event, SessionEnded):
                self._ended = event
            yield event

    async def __aiter__(self) -> AsyncIterator[Segment]:
        """The segments alone."""
        async for event in self.events():
            if isinstance(event, Segment):
                yield event

    def pictures(self, segment: Segment) -> npt.NDArray[np.uint8]:
        """The segment's frames as RGB [frames, height, width, 3].

        H.264 needs every segment, in order. Needs Pillow for JPEG and PyAV for H.264 (`pip install visavis[client]`).
        """
        if self._decoder is None:
            self._decoder = PictureDecoder(self.video_format, self.start.width, self.start.height)
        return self._decoder.decode(segment.frames)

    def samples(self, segment: Segment) -> npt.NDArray[np.generic]:
        """The segment's sound as [samples, channels] in the session's audio format."""
        return self.audio_format.samples(segment.pcm)

    async def close(self) -> None:
        """Drops the session at once. Idempotent; leaving `async with` calls it."""
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
        await self._stream.close()

    async def _send_all(self, packets: AsyncIterator[bytes], end: bool) -> None:
        try:
            async for packet in packets:
                await self.send(packet)
            await self.end_utterance()
            if end:
                await self.end()
        except ClientError:
            raise  # the reader gets it too
        except Exception as error:
            self._source_error = error
            await self._stream.close()
            raise

    async def _write(self, request: talking_head_pb2.TalkRequest) -> None:
        if self._ended is not None:
            raise SessionClosed("the session has ended; nothing more can be sent")
        await self._stream.send(request)

    def _bytes_of(self, samples: npt.NDArray[np.generic]) -> bytes:
        channels = 1 if samples.ndim == 1 else samples.shape[-1]
        if samples.dtype != self.audio_format.sample_type or channels != self.audio_format.channel_count:
            raise ValueError(
                f"the session sends {self.audio_format.sample_type} samples with {self.audio_format.channel_count} "
                f"channel(s); the array has {samples.dtype} and {channels}"
            )
        return samples.tobytes()
