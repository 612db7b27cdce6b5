"""A session's stream that survives its gateway and its network: breaks, reconnects and goes on where it was."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from visavis.client.errors import (
    CapacityExhausted,
    ClientError,
    DeadlineExceeded,
    FailedPrecondition,
    ServerUnavailable,
    SessionClosed,
)
from visavis.client.journal import InputJournal
from visavis.client.progress import Progress
from visavis.client.records import SessionStart
from visavis.client.talk_stream import TalkStream, stream_was_broken
from visavis.v1 import talking_head_pb2

OpenStream: TypeAlias = Callable[
    [talking_head_pb2.TalkRequest], Awaitable[tuple[TalkStream, talking_head_pb2.TalkResponse]]
]

_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 2.0


class ResumableStream:
    """Sends and receives as if nothing had happened; what the server had not used is sent again by itself.

    Responses that the client has already are left out. After a break a `resumed` response comes in their place, behind
    it `interrupted` where that notice was lost. Errors: the server's, typed, when it ended the session, when it does
    not resume, or when `SessionStart.resume_window_seconds` have passed without a connection.
    """

    def __init__(self, stream: TalkStream, start: SessionStart, bytes_per_sample: int, reopen: OpenStream) -> None:
        self._stream = stream
        self._token = start.resume_token
        self._window_seconds: Final = start.resume_window_seconds
        self._reopen: Final = reopen
        self._journal: Final = InputJournal(bytes_per_sample)
        self._progress: Final = Progress(self._journal)
        self._notices: Final = deque[talking_head_pb2.TalkResponse]()
        self._turn: Final = asyncio.Lock()
        self._sending: asyncio.Task[None] | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._failure: ClientError | None = None
        self._closed = False

    async def send(self, request: talking_head_pb2.TalkRequest) -> None:
        """Send one request, waiting while the server does not read. A caller who gives up leaves it on its way."""
        self._sending = asyncio.create_task(self._send_in_turn(request))
        await asyncio.shield(self._sending)

    async def receive(self) -> talking_head_pb2.TalkResponse:
        """The next response; a caller who gives up loses none."""
        while True:
            if self._notices:
                return self._notices.popleft()
            stream = self._stream
            try:
                response = await stream.read()
            except ClientError as error:
                await self._wait_for_another(stream, error)
                continue
            if response.HasField("ended"):
                await stream.finish()
            if self._progress.accept(response):
                return response

    async def close(self) -> None:
        """Drop the session at once. Idempotent."""
        self._closed = True
        if self._recovery is not None:
            self._recovery.cancel()
        await self._stream.close()
        pending = [task for task in (self._sending, self._recovery) if task is not None]
        await asyncio.gather(*pending, return_exceptions=True)

    async def _send_in_turn(self, request: talking_head_pb2.TalkRequest) -> None:
        async with self._turn:
            if self._failure is not None:
                raise self._failure
            self._journal.record(request)
            if self._recovery is None:
                stream = self._stream
                try:
                    await stream.write(request)
                except ClientError as error:
                    self._recover_from(stream, error)
            if self._recovery is not None:
                await asyncio.shield(self._recovery)

    async def _wait_for_another(self, broken: TalkStream, error: ClientError) -> None:
        while True:
            # A recovery that is under way when its own stream breaks may not notice it and end well.
            self._recover_from(broken, error)
            if self._stream is not broken:
                return
            await self._changed.wait()

    def _recover_from(self, broken: TalkStream, error: ClientError) -> None:
        """Start a recovery, unless one runs or has been; raises `error` where there is none to hope for."""
        if self._failure is not None:
            raise self._failure
        if self._recovery is not None or self._stream is not broken:
            return
        if self._closed or not self._token or not stream_was_broken(error):
            raise error
        self._recovery = asyncio.create_task(self._recover(error))
        self._recovery.add_done_callback(_retrieved)

    async def _recover(self, error: ClientError) -> None:
        try:
            while True:
                resumed = await self._resume(error)
                self._tell_change()
                try:
                    return await self._send_again(resumed.epoch)
                except ClientError as broken:
                    if self._closed or not stream_was_broken(broken):
                        raise
                    error = broken
        except ClientError as final:
            self._failure = final
            self._tell_change()
            raise
        except asyncio.CancelledError:
            self._failure = SessionClosed("the session was closed")
            self._tell_change()
            raise

    async def _resume(self, error: ClientError) -> talking_head_pb2.SessionResumed:
        """Open streams until one goes on with the session. Raises `error` where none does."""
        loop = asyncio.get_running_loop()
        gives_up_at = loop.time() + self._window_seconds
        pause_seconds = _FIRST_PAUSE_SECONDS
        await self._stream.close()
        while True:
            wait_seconds = pause_seconds * random.uniform(0.5, 1.0)
            try:
                async with asyncio.timeout_at(gives_up_at):
                    stream, response = await self._reopen(self._progress.request(self._token))
                return self._take(stream, response)
            except TimeoutError:
                raise _not_resumed(error, "the time to resume it has passed") from None
            except CapacityExhausted as full:
                wait_seconds = max(wait_seconds, full.retry_after_seconds or 0.0)
            except ClientError as refusal:
                if not _may_pass(refusal):
                    raise _not_resumed(error, str(refusal)) from refusal
            if loop.time() + wait_seconds >= gives_up_at:
                raise _not_resumed(error, "the time to resume it has passed")
            await asyncio.sleep(wait_seconds)
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)

    def _take(self, stream: TalkStream, response: talking_head_pb2.TalkResponse) -> talking_head_pb2.SessionResumed:
        resumed = response.resumed
        self._stream, self._token = stream, resumed.started.resume_token
        self._notices.append(response)
        self._notices.extend(self._progress.resumed(resumed))
        return resumed

    async def _send_again(self, epoch: int) -> None:
        """Send what the server has not used, also what is recorded meanwhile; then the stream is in order again."""
        position, number = self._progress.position, 0
        while requests := self._journal.after(epoch, position, number):
            number = self._journal.recorded
            for request in requests:
                await self._stream.write(request)
        self._recovery = None
        self._tell_change()

    def _tell_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _may_pass(refusal: ClientError) -> bool:
    """Whether the same request may be answered otherwise a little later."""
    if isinstance(refusal, ServerUnavailable | DeadlineExceeded) or stream_was_broken(refusal):
        return True
    return isinstance(refusal, FailedPrecondition) and refusal.reason in ("LEASE_HELD", "LEASE_LOST")


def _not_resumed(error: ClientError, why: str) -> ClientError:
    if isinstance(error, SessionClosed):
        return SessionClosed(f"the connection broke and the session could not be resumed: {why}")
    error.add_note(f"the session could not be resumed: {why}")
    return error


def _retrieved(recovery: "asyncio.Task[None]") -> None:
    """Whoever waits gets the error; nobody may be waiting."""
    if not recovery.cancelled():
        recovery.exception()
