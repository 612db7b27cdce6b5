"""Times several jobs in turns, so that whatever else the machine does hits all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from visavis.bench.percentiles import Percentiles

LEAST_TURNS: Final = 3


def time_in_turns(jobs: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, Percentiles]:
    """Runs each job once unmeasured, then all of them in turns, until each has run `seconds` and three times.

    A job returns when its work is done.
    """
    for job in jobs.values():
        job()
    found: dict[str, list[float]] = {name: [] for name in jobs}
    while any(len(times) < LEAST_TURNS or sum(times) < seconds for times in found.values()):
        for name, job in jobs.items():
            begin = time.perf_counter()
            job()
            found[name].append(time.perf_counter() - begin)
    return {name: Percentiles.of(times) for name, times in found.items()}
