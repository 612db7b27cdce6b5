"""The line that a person watches: a bar in a terminal, a line every half minute in a file."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Final, Self

from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from visavis.training.task import Progress

_SECONDS_BETWEEN_LINES: Final = 30.0


class ProgressLine:
    """Shows each step of a training. Use as a context manager."""

    def __init__(self) -> None:
        self._bar = Bar(TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self._task = self._bar.add_task("starting", total=1.0)
        self._in_terminal = sys.stdout.isatty()
        self._shown_at = 0.0

    def __enter__(self) -> Self:
        if self._in_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._in_terminal:
            self._bar.stop()

    def show(self, progress: Progress) -> None:
        """Called after each step."""
        text = (
            f"step {progress.step}  {progress.phase} {100 * progress.phase_progress:.1f} %  "
            f"loss {progress.loss:.4f}  {progress.seconds_per_step:.2f} s/step"
        )
        if self._in_terminal:
            self._bar.update(self._task, description=text, completed=progress.phase_progress)
        elif time.monotonic() - self._shown_at >= _SECONDS_BETWEEN_LINES:
            print(text, flush=True)
            self._shown_at = time.monotonic()
