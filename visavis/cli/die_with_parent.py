"""Runs a command that the kernel kills as soon as the process that asked for it is gone.

Usage: python die_with_parent.py PARENT_PID COMMAND [ARGUMENT ...]

A file of its own, run by its path and importing nothing of visavis: it replaces itself by the command, so it costs one
bare interpreter start. (`preexec_fn` could do the same, but is not safe in a process with threads.) The kernel watches
the parent's *thread* that started this process, so that must be one that lives as long as the parent: the main thread.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent_pid: int, command: list[str]) -> None:
    """Replaces this process by `command`."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        sys.exit("the parent died before its child started")
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
