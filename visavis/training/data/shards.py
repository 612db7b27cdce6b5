"""Shards: tar files of clips, WebDataset's layout (KEY.mp4, KEY.flac, KEY.npz, KEY.json). Whole or not there at all."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from visavis.training.data.clip_files import ARRAYS, RECORD, SPEECH, VIDEO, ClipFileError, check_members

MEMBERS = (VIDEO, SPEECH, ARRAYS, RECORD)
_PARTIAL = ".partial"

# key, and the clip's files by their kind
ClipFiles = tuple[str, dict[str, bytes]]


class ShardError(ValueError):
    """A shard is broken. The message names it and what to do."""


def write_shard(path: Path, clips: Iterable[ClipFiles]) -> None:
    """Writes a shard beside its place and moves it there when it is whole and on the disk.

    Raises OSError as the disk does; then the half shard is removed.
    """
    partial = path.with_name(path.name + _PARTIAL)
    try:
        with partial.open("wb") as file:
            _write_tar(file, clips)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)


def read_members(path: Path) -> Iterator[ClipFiles]:
    """Every clip's files in order, checked against the record's hashes. Raises ShardError."""
    try:
        if path.stat().st_size % tarfile.RECORDSIZE:
            raise ClipFileError("it is cut off")  # tarfile itself would take a cut between two clips for the end
        with tarfile.open(path, "r:") as archive:
            names = iter(archive)
            for first in names:
                members = [first, *islice(names, len(MEMBERS) - 1)]
                yield _clip(archive, members)
    except (tarfile.TarError, EOFError) as error:
        raise ShardError(f"the shard {path.name} is broken ({error}): remove it and render again") from error
    except ClipFileError as error:
        raise ShardError(f"the shard {path.name} is broken: {error}; remove it and render again") from error


def shard_is_whole(path: Path, keys: Sequence[str]) -> bool:
    """Whether the shard is there and holds exactly these clips, unchanged."""
    if not path.is_file():
        return False
    try:
        return [key for key, _ in read_members(path)] == list(keys)
    except ShardError:
        return False


def _write_tar(file: BinaryIO, clips: Iterable[ClipFiles]) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for key, members in clips:
            for kind in MEMBERS:
                entry = tarfile.TarInfo(f"{key}.{kind}")
                entry.size = len(members[kind])
                entry.mode = 0o644
                archive.addfile(entry, io.BytesIO(members[kind]))


def _clip(archive: tarfile.TarFile, members: Sequence[tarfile.TarInfo]) -> ClipFiles:
    key = members[0].name.split(".", 1)[0]
    if [member.name for member in members] != [f"{key}.{kind}" for kind in MEMBERS]:
        raise ClipFileError(f"clip {key} is not whole")
    files: dict[str, bytes] = {}
    for kind, member in zip(MEMBERS, members, strict=True):
        content = archive.extractfile(member)
        data = content.read() if content else b""
        if len(data) != member.size:
            raise ClipFileError(f"clip {key} is cut off")
        files[kind] = data
    try:
        check_members(files)
    except ClipFileError as error:
        raise ClipFileError(f"clip {key}: {error}") from error
    return key, files
