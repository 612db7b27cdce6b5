"""Checkpoints of a training: whole or not there at all, the last few of them kept.

RUN/checkpoints/step-00001200.pt
"""

from __future__ import annotations

import errno
import io
import os
import pickle
from pathlib import Path
from typing import Any, Final

import torch

from visavis.training.errors import TrainingError

_SUFFIX: Final = ".pt"
_PARTIAL: Final = ".partial"
KEPT: Final = 3

# Tensors, numbers, text and containers of them: read without running any code.
State = dict[str, Any]


class CheckpointFolder:
    """Writes and finds checkpoints. `fingerprint` says which plan they belong to."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._folder = folder
        self._fingerprint = fingerprint

    def save(self, step: int, state: State) -> Path:
        """Writes beside the place, syncs and moves; then removes all but the last `KEPT`.

        Raises TrainingError when the disk is full or weights are not finite; what is there stays as it is.
        """
        _refuse_broken_weights(state, step)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"step-{step:08d}{_SUFFIX}"
        serialised = io.BytesIO()
        torch.save({**state, "fingerprint": self._fingerprint}, serialised)
        try:
            _write_whole(path, serialised.getbuffer())
        except OSError as error:
            raise _as_training_error(error, self._folder) from error
        for old in self.paths()[:-KEPT]:
            old.unlink()
        return path

    def load_latest(self) -> State | None:
        """The newest checkpoint that can be read; None when there is none.

        Raises TrainingError when it belongs to another plan, or when there are some and none can be read.
        """
        paths = self.paths()
        for path in reversed(paths):
            state = _read(path)
            if state is None:
                continue
            if state["fingerprint"] != self._fingerprint:
                raise TrainingError(
                    f"the checkpoint {path} belongs to another plan: choose another run folder, or start this plan "
                    "from its weights with --weights"
                )
            return state
        if paths:
            raise TrainingError(f"no checkpoint in {self._folder} can be read: remove them to start again")
        return None

    def paths(self) -> list[Path]:
        """All checkpoints, the oldest first."""
        return sorted(self._folder.glob(f"step-*{_SUFFIX}"))


def _read(path: Path) -> State | None:
    try:
        state: State = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError):
        return None
    return state if "fingerprint" in state else None


def _write_whole(path: Path, data: memoryview) -> None:
    partial = path.with_name(path.name + _PARTIAL)
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _refuse_broken_weights(state: State, step: int) -> None:
    for name, value in state["model"].items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise TrainingError(f"at step {step} the weight {name} is not finite: no checkpoint is written")


def _as_training_error(error: OSError, folder: Path) -> TrainingError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TrainingError(f"the disk of {folder} is full: the checkpoints before stay; make room and run it again")
    return TrainingError(f"no checkpoint can be written to {folder}: {error.strerror}")
