"""One session: speech goes in, a talking face comes out."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import grpc
import grpc.aio
import numpy as np
import numpy.typing as npt

from visavis.client.errors import ClientError, SessionClosed, error_from_rpc, error_from_status
from visavis.client.events import Event, Segment, SessionEnded, event_from_message
from visavis.client.formats import AudioFormat, VideoFormat
from visavis.client.pictures import PictureDecoder
from visavis.client.records import SessionStart
from visavis.client.status_details import read_status_details
from visavis.v1 import talking_head_pb2

TalkCall = grpc.aio.StreamStreamCall[talking_head_pb2.TalkRequest, talking_head_pb2.TalkResponse]

MAX_PACKET_BYTES: Final = 256 * 1024


class TalkSession:
    """An open session; made by `VisavisClient.talk`.

    Speech and video flow at the same time: send from one task and iterate in another (`send_in_background` does the
    first). The server stops reading about 30 s of speech ahead of a reader that does not read.
    """

    def __init__(
        self, call: TalkCall, start: SessionStart, audio_format: AudioFormat, video_format: VideoFormat
    ) -> None:
        self.start: Final = start
        self.audio_format: Final = audio_format
        self.video_format: Final = video_format
        self._call = call
        self._decoder: PictureDecoder | None = None
        self._writing = asyncio.Lock()
        self._write_task: asyncio.Task[None] | None = None
        self._read_task: asyncio.Task[talking_head_pb2.TalkResponse] | None = None
        self._sender: asyncio.Task[None] | None = None
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

    async def interrupt(self, played_samples: int) -> None:
        """Drops what was not played. `played_samples` counts on the session's timeline in its sample rate."""
        message = talking_head_pb2.Interrupt(played_samples=played_samples)
        await self._write(talking_head_pb2.TalkRequest(interrupt=message))

    async def end(self) -> None:
        """Says that no speech follows; what is pending is rendered and iteration ends after it."""
        message = talking_head_pb2.EndOfAudio()
        await self._write(talking_head_pb2.TalkRequest(end_of_audio=message))
        async with self._writing:
            await self._call.done_writing()

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
            message = await self._read()
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
        self._call.cancel()
        pending = [task for task in (self._write_task, self._read_task) if task is not None]
        await asyncio.gather(*pending, return_exceptions=True)

    async def _send_all(self, packets: AsyncIterator[bytes], end: bool) -> None:
        try:
            async for packet in packets:
                await self.send(packet)
            await self.end_utterance()
            if end:
                await self.end()
        except Exception:
            self._call.cancel()
            raise

    async def _write(self, request: talking_head_pb2.TalkRequest) -> None:
        # grpc.aio cancels the whole call with a cancelled write. So a caller who gives up sending leaves a task behind
        # that finishes its message, and the lock keeps the next message behind it.
        self._write_task = asyncio.create_task(self._write_in_turn(request))
        await asyncio.shield(self._write_task)

    async def _write_in_turn(self, request: talking_head_pb2.TalkRequest) -> None:
        async with self._writing:
            try:
                await self._call.write(request)
            except (asyncio.InvalidStateError, grpc.aio.UsageError) as error:
                raise await self._failure() from error
            except grpc.aio.AioRpcError as error:
                raise error_from_rpc(error) from error

    async def _read(self) -> talking_head_pb2.TalkResponse:
        if self._read_task is None:
            self._read_task = asyncio.create_task(self._read_now())
        message = await asyncio.shield(self._read_task)  # a reader with a timeout loses neither call nor message
        self._read_task = None
        return message

    async def _read_now(self) -> talking_head_pb2.TalkResponse:
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError as error:
            self._raise_sender_error()
            raise error_from_rpc(error) from error
        except asyncio.CancelledError as error:
            self._raise_sender_error()
            raise SessionClosed("the session was closed") from error
        if not isinstance(message, talking_head_pb2.TalkResponse):
            raise SessionClosed("the server closed the session without saying that it ended")
        return message

    def _raise_sender_error(self) -> None:
        """A sender that failed by itself is the cause of the broken call, not its consequence."""
        if self._sender is None or not self._sender.done() or self._sender.cancelled():
            return
        error = self._sender.exception()
        if error is not None and not isinstance(error, ClientError):
            raise error

    async def _failure(self) -> ClientError:
        code = await self._call.code()
        if code is grpc.StatusCode.OK:
            return SessionClosed("the session has ended; nothing more can be sent")
        details = read_status_details(await self._call.trailing_metadata())
        return error_from_status(code, await self._call.details() or "", details)

    def _bytes_of(self, samples: npt.NDArray[np.generic]) -> bytes:
        channels = 1 if samples.ndim == 1 else samples.shape[-1]
        if samples.dtype != self.audio_format.sample_type or channels != self.audio_format.channel_count:
            raise ValueError(
                f"the session sends {self.audio_format.sample_type} samples with {self.audio_format.channel_count} "
                f"channel(s); the array has {samples.dtype} and {channels}"
            )
        return samples.tobytes()
