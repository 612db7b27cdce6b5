"""Starts processes, waits until they are ready, notices when one dies, and stops them all.

What a process prints goes straight into files of the run folder, so nothing has to be drained and nothing is lost.
No process outlives the supervisor, not even a killed one: the kernel kills them with it (`die_with_parent`).
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from visavis.cli import die_with_parent
from visavis.cli.errors import CommandError
from visavis.cli.log_line import readable_log_line

POLL_SECONDS: Final = 0.05
LOG_LINES_SHOWN: Final = 15
_LAUNCHER: Final = Path(die_with_parent.__file__)


class ProcessDied(CommandError):
    """A process ended that should run on. The message carries the end of its log."""


class NotReady(CommandError):
    """A process did not become ready in time. The message carries the end of its log."""


@dataclass(frozen=True, slots=True)
class ManagedProcess:
    """A process of the supervisor.

    tier: processes of a higher tier are stopped first.
    """

    name: str
    tier: int
    popen: subprocess.Popen[bytes]
    output: Path
    log: Path

    @property
    def pid(self) -> int:
        """Its process id, and that of its process group."""
        return self.popen.pid

    def ready_line(self) -> Mapping[str, Any] | None:
        """The line {"event": "ready", ...} that a service prints once it serves; None before."""
        for line in self.output.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n") and b'"ready"' in line:
                message = json.loads(line)
                if message.get("event") == "ready":
                    found: Mapping[str, Any] = message
                    return found
        return None

    def last_lines(self) -> str:
        """The end of what it wrote, for an error message."""
        lines: list[str] = []
        for path in (self.output, self.log):
            lines += path.read_text(errors="replace").splitlines()
        shown = [f"  {readable_log_line(line)}" for line in lines[-LOG_LINES_SHOWN:]]
        return "\n".join(shown) or "  (it wrote nothing)"


class Supervisor:
    """Processes that live and die together, for `with`. Start them from the main thread.

    run_folder: gets NAME.out and NAME.log of every process.
    stop_seconds: how long a tier may take to end by itself before it is killed.
    """

    def __init__(self, run_folder: Path, *, stop_seconds: float) -> None:
        self.run_folder: Final = run_folder
        self._stop_seconds = stop_seconds
        self._processes: list[ManagedProcess] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def processes(self) -> tuple[ManagedProcess, ...]:
        """What was started, in order."""
        return tuple(self._processes)

    def process(self, name: str) -> ManagedProcess:
        """The process of that name. KeyError if there is none."""
        for process in self._processes:
            if process.name == name:
                return process
        raise KeyError(name)

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str], *, tier: int) -> ManagedProcess:
        """Starts a command with exactly this environment. Its first word is the path of a program."""
        self.run_folder.mkdir(parents=True, exist_ok=True)
        output, log = self.run_folder / f"{name}.out", self.run_folder / f"{name}.log"
        launcher = [sys.executable, "-S", "-E", str(_LAUNCHER), str(os.getpid()), *command]
        with output.open("wb") as stdout, log.open("wb") as stderr:
            popen = subprocess.Popen(
                launcher,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=dict(environment),
                start_new_session=True,  # the terminal's Ctrl-C is for the supervisor, which stops them in order
            )
        process = ManagedProcess(name, tier, popen, output, log)
        self._processes.append(process)
        return process

    def wait_ready(self, process: ManagedProcess, timeout_seconds: float) -> Mapping[str, Any]:
        """Waits for a service's ready line. ProcessDied when any process ends, NotReady when it takes too long."""
        self.wait_until(lambda: process.ready_line() is not None, process, timeout_seconds)
        line = process.ready_line()
        assert line is not None
        return line

    def wait_until(self, condition: Callable[[], bool], process: ManagedProcess, timeout_seconds: float) -> None:
        """Waits for a condition that `process` brings about. Raises as `wait_ready` does."""
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                raise NotReady(
                    f"{process.name} was not ready within {timeout_seconds:.0f} s; its last lines "
                    f"({process.log}):\n{process.last_lines()}"
                )
            time.sleep(POLL_SECONDS)

    def check(self) -> None:
        """ProcessDied if any process has ended."""
        for process in self._processes:
            code = process.popen.poll()
            if code is not None:
                raise ProcessDied(
                    f"{process.name} {_ending(code)}; its last lines ({process.log}):\n{process.last_lines()}"
                )

    def stop(self) -> None:
        """Stops everything, highest tier first: SIGTERM, then SIGKILL for what does not end in time. Idempotent.

        A second Ctrl-C while it waits kills what is left at once.
        """
        try:
            for tier in sorted({process.tier for process in self._processes}, reverse=True):
                self._stop_tier([process for process in self._processes if process.tier == tier])
        finally:
            for process in self._processes:
                _kill(process)
            self._processes.clear()

    def _stop_tier(self, processes: Sequence[ManagedProcess]) -> None:
        for process in processes:
            if process.popen.poll() is None:
                process.popen.terminate()
        deadline = time.monotonic() + self._stop_seconds
        while time.monotonic() < deadline and any(process.popen.poll() is None for process in processes):
            time.sleep(POLL_SECONDS)
        for process in processes:
            _kill(process)


def _kill(process: ManagedProcess) -> None:
    """Kills what is left of a process and of its group (a service's worker)."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.popen.wait()


def _ending(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
