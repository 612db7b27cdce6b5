"""The supervisor: nothing survives it, and a death is noticed with the dead one's last words."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.patience import PATIENCE_SECONDS
from visavis.cli.supervisor import NotReady, ProcessDied, Supervisor

READY = 'print(\'{"event": "ready", "address": "127.0.0.1:1", "metrics": "127.0.0.1:2"}\', flush=True);'
SLEEP = "import time; time.sleep(60)"
WITH_CHILD = (
    f"import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); print(c.pid, flush=True);"
)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # the latter: between opening and reading
        return False
    return state != "Z"


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_the_ready_line_is_found_among_other_output(tmp_path: Path) -> None:
    with Supervisor(tmp_path, stop_seconds=1) as supervisor:
        process = supervisor.start("a", python(f"print('hello'); {READY} {SLEEP}"), os.environ, tier=0)
        assert supervisor.wait_ready(process, PATIENCE_SECONDS)["address"] == "127.0.0.1:1"


def test_a_process_that_is_not_ready_in_time_is_named(tmp_path: Path) -> None:
    with Supervisor(tmp_path, stop_seconds=1) as supervisor:
        process = supervisor.start("slow one", python(SLEEP), os.environ, tier=0)
        with pytest.raises(NotReady, match="slow one"):
            supervisor.wait_ready(process, 0.2)


def test_a_death_is_told_with_the_last_lines_of_the_log(tmp_path: Path) -> None:
    with Supervisor(tmp_path, stop_seconds=1) as supervisor:
        failing = "import sys; print('the reason', file=sys.stderr); sys.exit(3)"
        supervisor.start("well", python(SLEEP), os.environ, tier=0)
        process = supervisor.start("ill", python(failing), os.environ, tier=0)
        with pytest.raises(ProcessDied, match=r"(?s)ill ended with exit code 3.*the reason"):
            supervisor.wait_ready(process, PATIENCE_SECONDS)


def test_a_killed_process_is_named_with_its_signal(tmp_path: Path) -> None:
    with Supervisor(tmp_path, stop_seconds=1) as supervisor:
        process = supervisor.start("a", python(READY + SLEEP), os.environ, tier=0)
        supervisor.wait_ready(process, PATIENCE_SECONDS)
        os.kill(process.pid, signal.SIGKILL)
        process.popen.wait()
        with pytest.raises(ProcessDied, match="killed by SIGKILL"):
            supervisor.check()


def test_higher_tiers_are_stopped_first(tmp_path: Path) -> None:
    record = tmp_path / "order"
    code = (
        "import signal, sys, time\n"
        "def end(*_):\n"
        f"    open({str(record)!r}, 'a').write(sys.argv[1] + ' '); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n" + READY + "\ntime.sleep(60)"
    )
    with Supervisor(tmp_path, stop_seconds=PATIENCE_SECONDS) as supervisor:
        for name, tier in (("valkey", 0), ("stage", 1), ("gateway", 2)):
            process = supervisor.start(name, [*python(code), name], os.environ, tier=tier)
            supervisor.wait_ready(process, PATIENCE_SECONDS)
    assert record.read_text().split() == ["gateway", "stage", "valkey"]


def test_what_ignores_sigterm_is_killed_with_its_children(tmp_path: Path) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + WITH_CHILD + READY + SLEEP
    with Supervisor(tmp_path, stop_seconds=0.3) as supervisor:
        process = supervisor.start("a", python(stubborn), os.environ, tier=0)
        supervisor.wait_ready(process, PATIENCE_SECONDS)
        child = int(process.output.read_text().split()[0])
        assert is_running(child)
    assert eventually(lambda: not is_running(child))
    assert not is_running(process.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_nothing_survives_a_killed_supervisor(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from visavis.cli.supervisor import Supervisor\n"
        f"supervisor = Supervisor(Path({str(tmp_path)!r}), stop_seconds=1)\n"
        f"process = supervisor.start('a', {python(READY + SLEEP)!r}, os.environ, tier=0)\n"
        "supervisor.wait_ready(process, 30)\n"
        "print(process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    owner = subprocess.Popen(python(code), stdout=subprocess.PIPE)
    assert owner.stdout is not None
    child = int(owner.stdout.readline())
    assert is_running(child)
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert eventually(lambda: not is_running(child))
