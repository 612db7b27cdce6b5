"""A worker keeps the memory of freed tensors."""

import subprocess
import sys

import pytest

_PROGRAM = """
import ctypes, resource
import numpy as np
from visavis.runtime import worker_process

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: pages of one size, whatever the machine's rule is

if {keep}:
    worker_process._keep_freed_memory()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        np.ones(40_000_000, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""


def _faults(keep: bool) -> int:
    program = [sys.executable, "-c", _PROGRAM.format(keep=keep)]
    return int(subprocess.run(program, capture_output=True, text=True, check=True, timeout=60).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the C library's allocator is told so on Linux only")
def test_blocks_that_are_freed_and_taken_again_are_not_touched_anew() -> None:
    assert _faults(keep=True) < 100 < _faults(keep=False)
