"""The folder of a data set: it holds one data set only, and whole shards only.

DIR/dataset.json says how it was made.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from visavis.training.data.shards import ClipFiles, write_shard

_SETTINGS_FILE = "dataset.json"


class DatasetError(RuntimeError):
    """A data set cannot be made here. The message says what is wrong and what to do."""


def claim_folder(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Writes how the data set is made into a new folder. Raises DatasetError when it holds another data set."""
    path = folder / _SETTINGS_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            found = json.loads(path.read_text())
        elif any(folder.glob("*/*.tar")):
            raise DatasetError(f"{folder} holds shards but no {_SETTINGS_FILE}: choose another folder")
        else:
            replace_file(path, json.dumps(wanted, indent=1))
            return
    except OSError as error:
        raise DatasetError(f"cannot use {folder}: {error.strerror}") from error
    except ValueError as error:
        raise DatasetError(f"{path} is not readable: remove the folder or choose another") from error
    other = [
        f"{name} {found.get(name)} instead of {value}" for name, value in wanted.items() if found.get(name) != value
    ]
    if other:
        raise DatasetError(f"{folder} holds another data set ({'; '.join(other)}): choose another folder")


def add_shard(path: Path, clips: Iterable[ClipFiles]) -> None:
    """Writes a shard whole. Raises DatasetError for a full disk, or as the disk says; the shards before it stay."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_shard(path, clips)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DatasetError(
                f"the disk is full at {path.name}. The shards before it are whole: make room "
                "(about half a megabyte a clip) and give the same command again"
            ) from error
        raise DatasetError(f"cannot write {path}: {error.strerror}") from error


def replace_file(path: Path, text: str) -> None:
    """Writes a text file beside its place and moves it there. Raises OSError."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)
