"""What is freed is the kernel's again."""

import os
import platform

import pytest

from visavis.runtime.freed_memory import return_freed_memory
from visavis.runtime.telemetry import resident_memory_bytes


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what was freed and can be told not to")
def test_freed_memory_between_what_stays_goes_back() -> None:
    before = resident_memory_bytes(os.getpid())
    blocks = [os.urandom(2_000) for _ in range(50_000)]
    stay = blocks[::1_000]
    del blocks
    kept = resident_memory_bytes(os.getpid()) - before
    return_freed_memory()
    left = resident_memory_bytes(os.getpid()) - before
    assert left < kept / 2
    assert len(stay) == 50
