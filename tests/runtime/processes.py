"""Whether a process lives; one that nobody has waited for yet counts as dead."""

import time
from pathlib import Path


def is_alive(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def wait_until_dead(process_id: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while is_alive(process_id):
        assert time.monotonic() < deadline, "the process still lives"
        time.sleep(0.01)
