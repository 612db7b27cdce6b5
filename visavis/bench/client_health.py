"""Whether the client itself was too slow: its event loop's lag and its processor time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from visavis.bench.live_session import SendLag
from visavis.bench.load_events import ClientHealth

BEAT_SECONDS: Final = 0.02
WORD_SECONDS: Final = 1.0


async def watch_health(
    process: int, lag: SendLag, *, moment: Callable[[], float], emit: Callable[[ClientHealth], None]
) -> None:
    """Tells once a second how this process and its event loop do, and once more when it is cancelled."""
    while True:
        begin, cpu_begin = time.monotonic(), time.process_time()
        loop_lag = 0.0
        try:
            while time.monotonic() - begin < WORD_SECONDS:
                due = time.monotonic() + BEAT_SECONDS
                await asyncio.sleep(BEAT_SECONDS)
                loop_lag = max(loop_lag, time.monotonic() - due)
        finally:
            cpu_share = (time.process_time() - cpu_begin) / (time.monotonic() - begin)
            emit(ClientHealth(moment(), process, loop_lag, lag.take(), cpu_share))
