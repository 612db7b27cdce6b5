"""What a training says about itself: RUN/log.jsonl for programs, RUN/tensorboard for curves."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from torch.utils.tensorboard import SummaryWriter

from visavis.training.errors import TrainingError


class Journal:
    """Appends measures; a resumed training cuts off what came after its checkpoint. Use as a context manager.

    Of several processes only the one that `writes` leaves anything on the disk.
    """

    def __init__(self, folder: Path, first_step: int, writes: bool) -> None:
        self._curves: SummaryWriter | None = None
        if not writes:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "log.jsonl"
        _forget_after(self._path, first_step)
        self._curves = SummaryWriter(folder / "tensorboard", purge_step=first_step + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._curves is not None:
            self._curves.close()

    def write(self, event: str, step: int, measures: Mapping[str, float | str]) -> None:
        """Adds one line, and a point to each curve `event/name`. Raises TrainingError when the disk is full."""
        if self._curves is None:
            return
        line = {"event": event, "step": step, "time": round(time.time(), 3), **measures}
        try:
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise TrainingError(f"the log {self._path} cannot be written: {error.strerror}") from error
        for name, value in measures.items():
            if isinstance(value, float):
                self._curves.add_scalar(f"{event}/{name}", value, step)


def read_journal(folder: Path, event: str) -> list[dict[str, float | str]]:
    """The lines of one event, in order; a last line cut off by a crash is left out."""
    path = folder / "log.jsonl"
    lines = [_parsed(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return [line for line in lines if line is not None and line["event"] == event]


def _parsed(line: str) -> dict[str, float | str] | None:
    try:
        parsed: dict[str, float | str] = json.loads(line)
    except json.JSONDecodeError:
        return None
    return parsed


def _forget_after(path: Path, step: int) -> None:
    if not path.is_file():
        return
    lines = [(line, _parsed(line)) for line in path.read_text().splitlines()]
    kept = [line for line, parsed in lines if parsed is not None and int(parsed["step"]) <= step]
    aside = path.with_name(path.name + ".partial")
    aside.write_text("".join(f"{line}\n" for line in kept))
    aside.replace(path)
