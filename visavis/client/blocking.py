"""The client without async: the same verbs, run on an event loop in a thread of its own."""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError as FutureCancelled
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import numpy as np
import numpy.typing as npt

from visavis.client.client import Idle, Sampling, SlowReader, Starvation, VisavisClient
from visavis.client.events import Event, Segment, SessionEnded
from visavis.client.formats import AudioFormat, VideoFormat
from visavis.client.records import Avatar, Capacity, Consent, ServerInfo, SessionStart
from visavis.client.session import TalkSession
from visavis.client.tls import Tls

_Result = TypeVar("_Result")


class LoopThread:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="visavis-client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Runs a coroutine to its end; Ctrl-C in the waiting thread cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except FutureCancelled:
            raise
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Stops the loop and waits for its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class BlockingSession:
    """An open session; made by `BlockingClient.talk`. See `TalkSession` for the verbs and their errors.

    Send from another thread, or with `send_in_background`, while iterating.
    """

    def __init__(self, session: TalkSession, thread: LoopThread) -> None:
        self._session = session
        self._thread = thread
        self.start: Final[SessionStart] = session.start
        self.audio_format: Final[AudioFormat] = session.audio_format

    @property
    def ended(self) -> SessionEnded | None:
        """The server's last word, once it was received."""
        return self._session.ended

    def send(self, pcm: bytes | npt.NDArray[np.generic]) -> None:
        """Sends speech. Waits while the server is too far behind."""
        self._thread.run(self._session.send(pcm))

    def end_utterance(self) -> None:
        """Says that the utterance is complete."""
        self._thread.run(self._session.end_utterance())

    def interrupt(self, played_samples: int | None = None) -> None:
        """Drops what was not played."""
        self._thread.run(self._session.interrupt(played_samples))

    def end(self) -> None:
        """Says that no speech follows."""
        self._thread.run(self._session.end())

    def send_in_background(self, packets: Iterable[bytes], *, end: bool = True) -> None:
        """Sends every packet while the caller iterates. `packets` is drawn from in threads, so it may block."""

        async def start() -> None:
            self._session.send_in_background(_in_threads(packets), end=end)

        self._thread.run(start())

    def events(self) -> Iterator[Event]:
        """Segments and notices, in the server's order, to the end of the session."""
        events = self._session.events()
        while True:
            try:
                yield self._thread.run(_next(events))
            except StopAsyncIteration:
                return

    def __iter__(self) -> Iterator[Segment]:
        return (event for event in self.events() if isinstance(event, Segment))

    def pictures(self, segment: Segment) -> npt.NDArray[np.uint8]:
        """The segment's frames as RGB [frames, height, width, 3]."""
        return self._session.pictures(segment)

    def samples(self, segment: Segment) -> npt.NDArray[np.generic]:
        """The segment's sound as [samples, channels]."""
        return self._session.samples(segment)


class BlockingClient:
    """A connection to a server, for `with`. See `VisavisClient` for the verbs and their errors."""

    def __init__(
        self,
        address: str | Sequence[str],
        *,
        tls: Tls | None = None,
        call_seconds: float = 30.0,
        patience_seconds: float = 5.0,
    ) -> None:
        self._thread = LoopThread()

        async def connect() -> VisavisClient:
            return VisavisClient(address, tls=tls, call_seconds=call_seconds, patience_seconds=patience_seconds)

        try:
            self._client = self._thread.run(connect())
        except BaseException:
            self._thread.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection and stops the client's thread."""
        self._thread.run(self._client.close())
        self._thread.stop()

    def wait_until_reachable(self, timeout_seconds: float) -> None:
        """Waits for the connection. ServerUnavailable when the server cannot be reached in time."""
        self._thread.run(self._client.wait_until_reachable(timeout_seconds))

    def register_avatar(self, portrait: bytes | Path | str, consent: Consent, *, display_name: str = "") -> Avatar:
        """Registers a portrait and returns its avatar."""
        return self._thread.run(self._client.register_avatar(portrait, consent, display_name=display_name))

    def get_avatar(self, avatar_id: str) -> tuple[Avatar, bytes]:
        """An avatar and its thumbnail (JPEG)."""
        return self._thread.run(self._client.get_avatar(avatar_id))

    def list_avatars(self) -> list[Avatar]:
        """Every avatar."""

        async def collect() -> list[Avatar]:
            return [avatar async for avatar in self._client.list_avatars()]

        return self._thread.run(collect())

    def delete_avatar(self, avatar_id: str) -> None:
        """Deletes an avatar; its running sessions go on."""
        self._thread.run(self._client.delete_avatar(avatar_id))

    def capacity(self) -> Capacity:
        """How many sessions can run, and how many do."""
        return self._thread.run(self._client.capacity())

    def server_info(self) -> ServerInfo:
        """The server's version, model and picture size."""
        return self._thread.run(self._client.server_info())

    @contextmanager
    def talk(
        self,
        avatar: Avatar | str,
        *,
        audio_format: AudioFormat,
        video_format: VideoFormat | None = None,
        seed: int | None = None,
        idle: Idle = "server",
        starvation: Starvation = "server",
        slow_reader: SlowReader = "server",
        sampling: Sampling = "server",
    ) -> Iterator[BlockingSession]:
        """Opens a session with an avatar and drops it on leaving, unless it has ended."""
        opened = self._client.talk(
            avatar,
            audio_format=audio_format,
            video_format=video_format,
            seed=seed,
            idle=idle,
            starvation=starvation,
            slow_reader=slow_reader,
            sampling=sampling,
        )
        session = self._thread.run(opened.__aenter__())
        try:
            yield BlockingSession(session, self._thread)
        finally:
            self._thread.run(opened.__aexit__(None, None, None))


async def _next(events: AsyncIterator[Event]) -> Event:
    return await anext(events)


async def _in_threads(packets: Iterable[bytes]) -> AsyncIterator[bytes]:
    iterator = iter(packets)
    while (packet := await asyncio.to_thread(next, iterator, None)) is not None:
        yield packet
