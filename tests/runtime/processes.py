"""Whether a process lives; one that nobody has waited for yet counts as dead."""

import time
from pathlib import Path

from tests.patience import PATIENCE_SECONDS


def is_alive(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter: between opening and reading
        return False


def wait_until_dead(process_id: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while is_alive(process_id):
        assert time.monotonic() < deadline, "the process still lives"
        time.sleep(0.01)
