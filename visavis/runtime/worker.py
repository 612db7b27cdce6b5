"""The service's side of its worker process: sessions, calls, health, loss. One implementation for all stages."""

import asyncio
import contextlib
import json
import logging
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from google.protobuf.message import Message

from visavis.runtime.engine import EngineDescription
from visavis.runtime.errors import (
    CapacityExhausted,
    InternalError,
    SessionExists,
    StageUnavailable,
    VisavisError,
    WorkerLost,
)
from visavis.runtime.settings import WorkerSettings
from visavis.runtime.worker_messages import (
    Answered,
    Beat,
    CallEngine,
    CloseSession,
    Command,
    Event,
    OpenSession,
    Produced,
    RewindSession,
    StopWorker,
    SubmitItem,
    WorkerWarm,
)
from visavis.runtime.worker_process import WorkerPlace, WorkerStart

# A fresh interpreter: never a fork of a process that has gRPC's threads.
_BOOTSTRAP = (
    "import json, sys;"
    "place = json.loads(sys.argv[1]);"
    "sys.path[:] = place.pop('path');"
    "from visavis.runtime.worker_process import WorkerPlace, run_worker;"
    "run_worker(WorkerPlace(**place))"
)
# Far above what sessions may have in flight: full means that the worker has stopped reading, and it is lost.
COMMANDS_LIMIT = 4096
# Answers of one session that nobody has read; more means that the engine answers what it was not asked.
OUTPUTS_LIMIT = 1024
STOP_SECONDS = 5.0

logger = logging.getLogger(__name__)

T = TypeVar("T")


class WorkerSession:
    """One session in the worker. Iterating gives the engine's outputs in order and raises the error that ends it."""

    def __init__(self, worker: "Worker", key: int, session_id: str) -> None:
        self.session_id = session_id
        self._worker = worker
        self._key = key
        self._outputs: deque[Message] = deque()
        self._changed = asyncio.Event()
        self._error: VisavisError | None = None
        self._finished = False
        self._rewinds = 0

    @property
    def failed(self) -> bool:
        """Whether an error ends the iteration after the outputs that are there."""
        return self._error is not None

    def submit(self, item: Message) -> None:
        """Hands one item to the engine without waiting; the caller bounds how many are in flight."""
        if self._error is not None:
            raise self._error
        self._worker.send(SubmitItem(self._key, item, time.monotonic()))

    def rewind(self, rewind: Message) -> None:
        """Has the engine go back; what it has answered before and nobody has taken is dropped."""
        if self._error is not None:
            raise self._error
        self._outputs.clear()
        self._rewinds += 1
        self._worker.send(RewindSession(self._key, rewind))

    def finish(self) -> None:
        """No output is expected any more: the iteration ends after those that are there."""
        self._finished = True
        self._changed.set()

    def fail(self, error: VisavisError) -> None:
        """Ends the iteration with `error` after the outputs that are there; the first error stays."""
        self._error = self._error or error
        self._changed.set()

    def abandon(self, error: VisavisError) -> None:
        """Ends the iteration with `error` now, drops what is there and frees the session in the engine."""
        self._outputs.clear()
        self._error = self._error or error
        self._changed.set()
        self.close()

    def close(self) -> None:
        """Frees the session in the engine, before anything sent later; idempotent, does not wait."""
        self._worker.forget(self._key)

    def deliver(self, output: Message | VisavisError, rewinds: int) -> None:
        if isinstance(output, VisavisError):
            self.fail(output)
        elif rewinds < self._rewinds:
            pass  # made before the engine heard of the last rewind
        elif len(self._outputs) >= OUTPUTS_LIMIT:
            logger.error("the engine produces more than it was asked for", extra={"session_id": self.session_id})
            self.fail(InternalError("too-many-outputs"))
        else:
            self._outputs.append(output)
            self._changed.set()

    def __aiter__(self) -> "WorkerSession":
        return self

    async def __anext__(self) -> Message:
        while not self._outputs:
            if self._error is not None:
                raise self._error
            if self._finished:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._outputs.popleft()


class Worker:
    """Starts, feeds and watches one worker process. All methods belong to one event loop.

    `engine_factory` is "module:callable"; the callable gets `engine_settings` (picklable) in the worker. When the
    process dies, every session and call raises WorkerLost and `lost` is set; a lost worker is not started again.
    """

    def __init__(
        self,
        engine_factory: str,
        engine_settings: object,
        settings: WorkerSettings,
        *,
        stage: str,
        instance_id: str = "",
        log_level: str = "INFO",
    ) -> None:
        self.lost = asyncio.Event()
        self.description: EngineDescription | None = None
        self._start = WorkerStart(engine_factory, engine_settings)
        self._settings = settings
        self._names = {"stage": stage, "instance_id": instance_id, "log_level": log_level}
        self._process: subprocess.Popen[bytes] | None = None
        self._commands: queue.Queue[Command | WorkerStart | None] = queue.Queue(COMMANDS_LIMIT)
        self._sessions: dict[int, WorkerSession] = {}
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self._next_key = 1
        self._pending_calls = 0
        self._warm: asyncio.Future[EngineDescription] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._stopping = False
        self._beat = Beat(0.0, 0.0, 0.0, 0, {}, {})
        self._beat_at = 0.0
        self._busy_fraction = 0.0

    @property
    def process_id(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def busy_fraction(self) -> float:
        """Part of the last beats' time (about a second) in which the engine ran."""
        return self._busy_fraction

    @property
    def queue_depth(self) -> int:
        """Commands that the engine has not taken yet."""
        return self._commands.qsize() + self._beat.queue_depth

    @property
    def cache_bytes(self) -> Mapping[str, int]:
        """What the engine keeps for sessions, by kind; empty for one that keeps nothing."""
        return self._beat.cache_bytes

    @property
    def border_counts(self) -> Mapping[str, int]:
        """How the engine's sessions got to borders, by the way; empty for one that does not count it."""
        return self._beat.border_counts

    @property
    def stalled_seconds(self) -> float:
        """How long the command or step that runs now has been running, or how long there was no sign of life."""
        if self.description is None or self.lost.is_set():
            return 0.0
        return max(self._beat.active_seconds, self.silent_seconds)

    @property
    def silent_seconds(self) -> float:
        """How long the next sign of life is overdue; 0 before the worker is warm and after it is lost."""
        if self.description is None or self.lost.is_set():
            return 0.0
        return max(0.0, time.monotonic() - self._beat_at - self._beat_seconds)

    @property
    def hung(self) -> bool:
        return self.stalled_seconds > self._settings.hang_seconds

    def check_serving(self) -> None:
        """Raises StageUnavailable while the worker is starting, hung or lost."""
        if self.lost.is_set():
            raise WorkerLost("this instance has lost its worker; another one may serve you")
        if self.description is None:
            raise StageUnavailable("this instance is starting; try again")
        if self.hung:
            raise StageUnavailable("this instance does not make progress; another one may serve you")

    async def start(self) -> EngineDescription:
        """Starts the process and returns when the engine is warm; raises WorkerLost or StageUnavailable (too slow).

        Call it on the main thread's loop: the kernel ends the worker when the thread that started it ends.
        """
        assert self._process is None, "a worker starts once"
        loop = asyncio.get_running_loop()
        self._warm = loop.create_future()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = self._spawn(theirs.fileno())
        connection = Connection(ours.detach())
        self.send(self._start)
        writer = threading.Thread(target=self._write, args=(connection,), name="worker-writer", daemon=True)
        writer.start()
        reader = threading.Thread(target=self._read, args=(connection, writer, loop), name="worker-reader", daemon=True)
        reader.start()
        try:
            self.description = await _within(
                self._settings.start_timeout_seconds, self._warm, "the worker takes too long to start"
            )
        except BaseException:
            await self.stop()
            raise
        self._watching = asyncio.create_task(self._kill_when_stuck())
        return self.description

    async def open(self, session_id: str, config: Message) -> tuple[Message, WorkerSession]:
        """Opens a session: the engine's ready message and the session. Raises what the engine raises."""
        self.check_serving()
        if any(session.session_id == session_id for session in self._sessions.values()):
            raise SessionExists(f"session {session_id} is open already")
        key = self._take_key()
        session = self._sessions[key] = WorkerSession(self, key, session_id)
        try:
            ready = await self._ask(
                OpenSession(key, session_id, config), self._settings.open_timeout_seconds, "the session does not open"
            )
        except BaseException:
            session.close()
            raise
        return ready, session

    async def call(self, request: Message) -> Message:
        """Has the engine answer a request without a session. Raises what the engine raises, or CapacityExhausted."""
        self.check_serving()
        if self._pending_calls >= self._settings.max_pending_calls:
            raise CapacityExhausted("too many requests are waiting; try again")
        self._pending_calls += 1
        try:
            return await self._ask(
                CallEngine(self._take_key(), request), self._settings.call_timeout_seconds, "the worker is too slow"
            )
        finally:
            self._pending_calls -= 1

    async def stop(self) -> None:
        """Ends the process: politely, then by force. Idempotent; open sessions raise WorkerLost."""
        self._stopping = True
        if self._watching is not None:
            self._watching.cancel()
        process = self._process
        if process is None or self.lost.is_set():
            return
        with contextlib.suppress(WorkerLost):
            self.send(StopWorker())
        try:
            # Before it is warm an engine does not listen, and its loading is worth nothing any more.
            seconds = STOP_SECONDS if self.description is not None and not self.hung else 0.0
            async with asyncio.timeout(seconds):
                await self.lost.wait()
        except TimeoutError:
            process.kill()
            await self.lost.wait()

    def send(self, command: Command | WorkerStart) -> None:
        if self.lost.is_set():
            raise WorkerLost("this instance has lost its worker; another one may serve you")
        try:
            self._commands.put_nowait(command)
        except queue.Full:
            assert self._process is not None
            logger.error("the worker takes no commands; it is killed")
            self._process.kill()
            raise WorkerLost("this instance has lost its worker; another one may serve you") from None

    def forget(self, key: int) -> None:
        if self._sessions.pop(key, None) is not None and not self.lost.is_set():
            self.send(CloseSession(key))

    def _take_key(self) -> int:
        key, self._next_key = self._next_key, self._next_key + 1
        return key

    async def _ask(self, command: OpenSession | CallEngine, seconds: float, too_slow: str) -> Message:
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._answers[command.key] = answer
        try:
            self.send(command)
            return await _within(seconds, answer, too_slow)
        finally:
            del self._answers[command.key]

    async def _kill_when_stuck(self) -> None:
        assert self._process is not None
        stuck_before = False
        while True:
            await asyncio.sleep(self._beat_seconds)
            silent = self.silent_seconds > self._settings.silence_seconds
            stuck = silent or self.stalled_seconds > self._settings.kill_seconds
            if stuck and stuck_before:  # twice: after a pause of this process its first look is at old beats
                logger.error(
                    "the worker gives no sign of life; it is killed"
                    if silent
                    else "the worker makes no progress; it is killed"
                )
                self._process.kill()
                return
            stuck_before = stuck

    @property
    def _beat_seconds(self) -> float:
        return min(1.0, self._settings.hang_seconds / 4, self._settings.silence_seconds / 4)

    def _deliver(self, event: Event) -> None:
        match event:
            case Produced(key, output, rewinds):
                if key in self._sessions:
                    self._sessions[key].deliver(output, rewinds)
            case Answered(key, answer):
                self._settle(self._answers.get(key), answer)
            case Beat():
                self._note(event)
            case WorkerWarm(description):
                self._beat_at = time.monotonic()
                self._settle(self._warm, description)

    def _note(self, beat: Beat) -> None:
        passed = beat.alive_seconds - self._beat.alive_seconds
        if passed > 0:
            self._busy_fraction = min(1.0, (beat.busy_seconds - self._beat.busy_seconds) / passed)
        self._beat, self._beat_at = beat, time.monotonic()

    @staticmethod
    def _settle(future: "asyncio.Future[Any] | None", answer: Any) -> None:
        if future is None or future.done():
            return
        if isinstance(answer, VisavisError):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    def _lose(self, exit_code: int | None) -> None:
        if not self._stopping:
            logger.error("the worker is lost", extra={"exit_code": exit_code})
        self._busy_fraction = 0.0
        self.lost.set()
        error = WorkerLost("this instance has lost its worker; another one may serve you")
        for session in self._sessions.values():
            session.fail(error)
        for future in (*self._answers.values(), self._warm):
            self._settle(future, error)

    def _spawn(self, descriptor: int) -> subprocess.Popen[bytes]:
        place = WorkerPlace(
            descriptor=descriptor,
            parent_process_id=os.getpid(),
            threads=self._settings.threads,
            processors=self._settings.processors,
            beat_seconds=self._beat_seconds,
            **self._names,
        )
        return subprocess.Popen(
            [sys.executable, "-c", _BOOTSTRAP, json.dumps({**place._asdict(), "path": sys.path})],
            stdin=subprocess.DEVNULL,
            stdout=2,  # the service's stdout carries its ready line and nothing else
            pass_fds=(descriptor,),
        )

    def _write(self, connection: Connection) -> None:
        with contextlib.suppress(OSError):  # the reader sees the end too, and reports it
            while (command := self._commands.get()) is not None:
                connection.send(command)

    def _read(self, connection: Connection, writer: threading.Thread, loop: asyncio.AbstractEventLoop) -> None:
        assert self._process is not None
        with contextlib.suppress(EOFError, OSError):
            while True:
                _call_in(loop, self._deliver, connection.recv())
        self._process.kill()  # it has closed the pipe, so it is dead or of no use
        exit_code = self._process.wait()
        with contextlib.suppress(queue.Full):  # then the writer is not waiting for commands
            self._commands.put_nowait(None)
        writer.join()
        connection.close()
        _call_in(loop, self._lose, exit_code)


async def _within(seconds: float, future: "asyncio.Future[T]", too_slow: str) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await future
    except TimeoutError:
        raise StageUnavailable(f"{too_slow}; try again") from None


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[[Any], None], argument: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is interested any more
        loop.call_soon_threadsafe(function, argument)
