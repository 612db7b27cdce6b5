"""Runs the rows of a batch side by side on the cores of a CPU, each core with rows of its own.

Rows never look at each other, so cores that own rows meet once a pass. The other way, every operation split over all
cores, meets thousands of times a chunk: a quarter of the processor time goes to waking threads, and each meeting waits
for whichever core another process has just taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import TypeVar

import torch

Result = TypeVar("Result")


class RowThreads:
    """A fixed set of threads, each computing with one core."""

    def __init__(self, count: int) -> None:
        self.count = count
        # The number of cores an operation takes is a property of the calling thread.
        self._pool = ThreadPoolExecutor(count, "rows", initializer=torch.set_num_threads, initargs=(1,))

    def split(self, rows: int) -> list[slice]:
        """Shares of `rows` rows as even as can be, none of them empty."""
        shares = min(rows, self.count)
        borders = [rows * share // shares for share in range(shares + 1)]
        return [slice(start, end) for start, end in pairwise(borders)]

    def run(self, jobs: Sequence[Callable[[], Result]]) -> list[Result]:
        """Runs the jobs side by side, without gradients; returns their results in order, or raises the first error."""
        inference = torch.is_inference_mode_enabled()
        futures = [self._pool.submit(_without_gradients, job, inference) for job in jobs]
        return [future.result() for future in futures]


@cache
def row_threads(count: int) -> RowThreads:
    """The threads of this process for `count` cores."""
    return RowThreads(count)


def _without_gradients(job: Callable[[], Result], inference: bool) -> Result:
    # Whether gradients are kept is a property of the thread as well.
    with torch.inference_mode() if inference else torch.no_grad():
        return job()
