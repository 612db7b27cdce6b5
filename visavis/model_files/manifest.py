"""The list of a model folder's files with their SHA-256, in the format of the command `sha256sum`.

The hash of this list stands for the whole model: whoever knows it by a trusted way, such as a reviewed deployment, can
take the files from anywhere.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from visavis.model_files.errors import ModelFilesError

MANIFEST_FILE: Final = "SHA256SUMS"
_LINE: Final = re.compile(r"([0-9a-f]{64})  ([^\\\x00-\x1f]+)")


def write_manifest(folder: Path) -> str:
    """Lists every file of the folder in `SHA256SUMS` there and returns the list's own SHA-256 (hex)."""
    sums = {path: sha256_of(folder / path) for path in files_of(folder)}
    if not sums:
        raise ModelFilesError(f"there are no files in {folder}")
    text = "".join(f"{sums[path]}  {path}\n" for path in sorted(sums))
    parse_manifest(text.encode())  # a name that nobody could read back is refused here
    (folder / MANIFEST_FILE).write_text(text)
    return hashlib.sha256(text.encode()).hexdigest()


def check_manifest(content: bytes, sha256: str) -> dict[str, str]:
    """The SHA-256 (hex) of every file by its path. Raises ModelFilesError unless the list is the one that was meant."""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256.lower():
        raise ModelFilesError(f"{MANIFEST_FILE} has the SHA-256 {found}, not {sha256}: this is another model")
    return parse_manifest(content)


def parse_manifest(content: bytes) -> dict[str, str]:
    """Reads a list. Raises ModelFilesError for one that names a place outside of its folder, or a file twice."""
    sums: dict[str, str] = {}
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError:
        raise ModelFilesError(f"{MANIFEST_FILE} is not text") from None
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None or not _stays_inside(match[2]) or match[2] in sums:
            raise ModelFilesError(f"{MANIFEST_FILE} has an impossible line: {line[:200]!r}")
        sums[match[2]] = match[1]
    return sums


def verify_folder(folder: Path, manifest_sha256: str) -> None:
    """Reads every file. Raises ModelFilesError unless the folder holds exactly what the list says."""
    try:
        content = (folder / MANIFEST_FILE).read_bytes()
    except OSError as error:
        raise ModelFilesError(f"{folder / MANIFEST_FILE} cannot be read: {error.strerror}") from error
    verify_files(folder, check_manifest(content, manifest_sha256))


def verify_files(folder: Path, sums: Mapping[str, str]) -> None:
    """As `verify_folder`, for a list that is known."""
    present = files_of(folder)
    if missing := sorted(sums.keys() - present):
        raise ModelFilesError(f"{folder} lacks {', '.join(missing)}")
    if unknown := sorted(present - sums.keys()):
        raise ModelFilesError(f"{folder} has files that {MANIFEST_FILE} does not name: {', '.join(unknown)}")
    for path, expected in sums.items():
        if sha256_of(folder / path) != expected:
            raise ModelFilesError(f"{folder / path} is damaged: its SHA-256 is not that of {MANIFEST_FILE}")


def files_of(folder: Path) -> set[str]:
    """Paths within the folder, the list itself not among them."""
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {path for path in files if path != MANIFEST_FILE}


def sha256_of(path: Path) -> str:
    """Of a file's content, in hex."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _stays_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return str(PurePosixPath(path)) == path and ".." not in parts and not path.startswith("/") and path != MANIFEST_FILE
