"""The worker process: owns the engine (and with it the device), takes commands, steps, answers.

Three threads: a reader and a writer for the pipe, and the main thread, on which alone the engine runs. A fourth sends
signs of life. Torch is not imported before `run_worker` has set what OpenMP reads when it is loaded.
"""

import ctypes
import importlib
import logging
import math
import os
import queue
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from visavis.openmp import wait_asleep
from visavis.runtime.engine import CachingEngine, Engine, RewindingEngine
from visavis.runtime.errors import VisavisError, as_visavis_error
from visavis.runtime.json_logs import configure_logging
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

# Calls belong to no session: while sessions have work, one is answered in so many seconds, between two steps.
CALL_PATIENCE_SECONDS = 2.0
# When the parent reads no more, the engine waits: its outputs are worth nothing to a dead parent.
EVENTS_LIMIT = 1024
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 2**31 - 1
PR_SET_PDEATHSIG = 1

logger = logging.getLogger(__name__)


class WorkerStart(NamedTuple):
    """The first message to the worker. Unpickled after OpenMP's variables are set: settings may import torch."""

    engine_factory: str
    engine_settings: object


class WorkerPlace(NamedTuple):
    """Where and how the worker runs; known before anything is imported."""

    descriptor: int
    parent_process_id: int
    threads: int
    processors: tuple[int, ...]
    beat_seconds: float
    stage: str
    instance_id: str
    log_level: str


def run_worker(place: WorkerPlace) -> None:
    """The whole life of a worker process; does not return."""
    _die_with_parent(place.parent_process_id)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _settle(place.threads, place.processors)
    configure_logging(stage=place.stage, instance_id=place.instance_id, level=place.log_level)
    connection = Connection(place.descriptor)
    exit_code = 1
    try:
        start: WorkerStart = connection.recv()
        loop = EngineLoop(connection, place.beat_seconds)
        loop.run(lambda: load_engine(start.engine_factory, start.engine_settings))
        exit_code = 0
    except Exception:
        logger.exception("the worker ends: its engine failed")
    finally:
        logging.shutdown()
        # Without the interpreter's own ending: other threads may sit in native code.
        os._exit(exit_code)


def load_engine(factory: str, settings: object) -> Engine:
    """Imports "module:callable" and calls it with the settings."""
    module, colon, name = factory.partition(":")
    if not colon:
        raise ValueError(f"engine factory {factory!r} is not module:callable")
    engine: Engine = getattr(importlib.import_module(module), name)(settings)
    return engine


class EngineLoop:
    """Commands in, steps, events out."""

    def __init__(self, connection: Connection, beat_seconds: float) -> None:
        self._connection = connection
        self._beat_seconds = beat_seconds
        # Filled by the reader; the parent bounds it (in-flight items per session, pending calls).
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._events: queue.Queue[Event | None] = queue.Queue(EVENTS_LIMIT)
        self._session_ids: dict[int, str] = {}
        self._keys: dict[str, int] = {}
        self._rewinds: dict[int, int] = {}
        # With when they came; few, as the parent bounds them.
        self._calls: deque[tuple[float, CallEngine]] = deque()
        self._last_call = -math.inf
        self._born = time.monotonic()
        self._active_since: float | None = None
        self._busy_seconds = 0.0
        self._cache_bytes: Mapping[str, int] = {}
        self._border_counts: Mapping[str, int] = {}

    def run(self, create_engine: Callable[[], Engine]) -> None:
        """Creates and warms the engine, then serves until StopWorker; raises what escapes the engine."""
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        writer = threading.Thread(target=self._write, name="writer", daemon=True)
        writer.start()
        threading.Thread(target=self._beat, name="beat", daemon=True).start()
        try:
            # Not active: how long that takes has a limit of its own, and is no sign of an engine that hangs.
            engine = create_engine()
            engine.warm_up()
            description = engine.describe()
            self._events.put(WorkerWarm(description))
            self._serve(engine)
        finally:
            self._events.put(None)
            writer.join(timeout=5)

    def _serve(self, engine: Engine) -> None:
        while True:
            self._look_at(engine)
            for command in self._take(wait=not engine.has_work() and not self._calls):
                if isinstance(command, StopWorker):
                    return
                if isinstance(command, CallEngine):
                    self._calls.append((time.monotonic(), command))
                    continue
                with self._active():
                    self._perform(engine, command)
            self._answer_call(engine)
            if engine.has_work():
                with self._active():
                    outputs = engine.step()
                for session_id, output in outputs:
                    self._emit(engine, session_id, output)

    def _look_at(self, engine: Engine) -> None:
        """Here and not where it is sent: only the main thread may touch the engine."""
        if isinstance(engine, CachingEngine):
            self._cache_bytes = engine.cache_bytes()
        if isinstance(engine, RewindingEngine):
            self._border_counts = engine.border_counts()

    def _take(self, *, wait: bool) -> Iterator[Command]:
        """What is there now, at least one command when waiting; later arrivals come after the next step."""
        if wait:
            yield self._commands.get()
        for _ in range(self._commands.qsize()):
            yield self._commands.get()

    def _answer_call(self, engine: Engine) -> None:
        """One call, if sessions have nothing to do, or if the last one was long ago for it too."""
        if not self._calls:
            return
        arrived, call = self._calls[0]
        if engine.has_work() and time.monotonic() - max(arrived, self._last_call) < CALL_PATIENCE_SECONDS:
            return
        self._calls.popleft()
        with self._active():
            answer = _answer_of(lambda: engine.call(call.request), "")
        self._events.put(Answered(call.key, answer))
        self._last_call = time.monotonic()

    def _perform(self, engine: Engine, command: Command) -> None:
        match command:
            case OpenSession():
                self._open(engine, command)
            case SubmitItem(key, item, arrival_seconds) if key in self._session_ids:
                session_id = self._session_ids[key]
                error = _error_of(lambda: engine.submit(session_id, item, arrival_seconds), session_id)
                if error is not None:
                    self._emit(engine, session_id, error)
            case RewindSession(key, rewind) if key in self._session_ids:
                session_id = self._session_ids[key]
                self._rewinds[key] += 1
                error = _error_of(lambda: engine.rewind(session_id, rewind), session_id)
                if error is not None:
                    self._emit(engine, session_id, error)
            case CloseSession(key) if key in self._session_ids:
                self._forget(engine, key)
            case _:
                pass  # for a session that has ended meanwhile

    def _open(self, engine: Engine, command: OpenSession) -> None:
        session_id = command.session_id
        answer = _answer_of(lambda: engine.open(session_id, command.config), session_id)
        if isinstance(answer, VisavisError):
            engine.close(session_id)
        else:
            self._session_ids[command.key] = session_id
            self._keys[session_id] = command.key
            self._rewinds[command.key] = 0
        self._events.put(Answered(command.key, answer))

    def _emit(self, engine: Engine, session_id: str, output: Any) -> None:
        key = self._keys.get(session_id)
        if key is None:
            logger.warning("dropped what the engine made for a closed session", extra={"session_id": session_id})
            return
        self._events.put(Produced(key, output, self._rewinds[key]))
        if isinstance(output, VisavisError):
            self._forget(engine, key)

    def _forget(self, engine: Engine, key: int) -> None:
        session_id = self._session_ids.pop(key)
        del self._keys[session_id], self._rewinds[key]
        engine.close(session_id)

    @contextmanager
    def _active(self) -> Iterator[None]:
        started = self._active_since = time.monotonic()
        try:
            yield
        finally:
            self._active_since = None
            self._busy_seconds += time.monotonic() - started

    def _read(self) -> None:
        try:
            while True:
                self._commands.put(self._connection.recv())
        except (EOFError, OSError):
            os._exit(0)  # the parent is gone, and with it everybody who could ask for anything

    def _write(self) -> None:
        try:
            while (event := self._events.get()) is not None:
                self._connection.send(event)
        except OSError:
            os._exit(0)

    def _beat(self) -> None:
        while True:
            time.sleep(self._beat_seconds)
            now, active_since = time.monotonic(), self._active_since
            active_seconds = 0.0 if active_since is None else now - active_since
            beat = Beat(
                active_seconds,
                self._busy_seconds + active_seconds,
                now - self._born,
                self._commands.qsize(),
                self._cache_bytes,
                self._border_counts,
            )
            with suppress(queue.Full):  # the parent does not read; it will not miss a beat
                self._events.put_nowait(beat)


def _answer_of(ask: Callable[[], Any], session_id: str) -> Any:
    try:
        return ask()
    except Exception as error:
        return as_visavis_error(error, session_id=session_id)


def _error_of(act: Callable[[], None], session_id: str) -> VisavisError | None:
    try:
        act()
    except Exception as error:
        return as_visavis_error(error, session_id=session_id)
    return None


def _settle(threads: int, processors: tuple[int, ...]) -> None:
    wait_asleep()
    if threads:
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[variable] = str(threads)
    if processors:
        os.sched_setaffinity(0, processors)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Has glibc keep the memory of freed tensors for the next ones of the same size.

    By default it gives large blocks back to the kernel at once, and every chunk pays for touching fresh pages: 12,000
    page faults, a twelfth of the time of decoding a chunk of `mini`. What is kept is the peak, which comes every chunk.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # other C libraries have none
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def _die_with_parent(parent_process_id: int) -> None:
    """The pipe's end is noticed by the reader; this one works also while native code holds the interpreter's lock."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_process_id:
        os._exit(0)
