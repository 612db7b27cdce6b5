"""Brings a model folder from an object store, a web server or another folder, whole and verified or not at all."""

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from visavis.model_files.errors import ModelFilesError
from visavis.model_files.manifest import MANIFEST_FILE, check_manifest, verify_folder

_MAX_MANIFEST_BYTES: Final = 1024 * 1024
_PART_BYTES: Final = 8 * 1024 * 1024


def fetch_model(source: str, target: Path, manifest_sha256: str, say: Callable[[str], None]) -> None:
    """Makes `target` the model whose `SHA256SUMS` has this SHA-256; a `target` that is there already is verified.

    source: `s3://bucket/path`, `gs://`, `az://`, `https://host/path` or a folder. The stores' usual variables apply
    (`AWS_ENDPOINT_URL`, `AWS_REGION`, a role or keys, ...). `target` appears at once, complete; what a process that was
    killed left is thrown away by the next one. say: hears one line per file. Raises ModelFilesError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone_at(target):
        if target.exists():
            verify_folder(target, manifest_sha256)
            say(f"{target} is there and verified")
            return
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            _download(_open_store(source), partial, manifest_sha256, say)
            partial.rename(target)
        except BaseError as error:
            raise ModelFilesError(f"{source} cannot be read: {_first_line(error)}") from error
        except OSError as error:
            raise ModelFilesError(f"{target} cannot be written: {error}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _download(store: ObjectStore, folder: Path, manifest_sha256: str, say: Callable[[str], None]) -> None:
    manifest = b""
    for part in _parts(store, MANIFEST_FILE):
        manifest += part
        if len(manifest) > _MAX_MANIFEST_BYTES:
            raise ModelFilesError(f"{MANIFEST_FILE} is larger than {_MAX_MANIFEST_BYTES} bytes: it is something else")
    for path, expected in check_manifest(manifest, manifest_sha256).items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with target.open("xb") as file:
            for part in _parts(store, path):
                digest.update(part)
                file.write(part)
        if digest.hexdigest() != expected:
            raise ModelFilesError(f"{path} arrived with another SHA-256 than {MANIFEST_FILE} says; nothing was kept")
        say(f"{path}: {target.stat().st_size} bytes, verified")
    (folder / MANIFEST_FILE).write_bytes(manifest)


def _parts(store: ObjectStore, path: str) -> Iterator[memoryview]:
    for part in obstore.get(store, path).stream(min_chunk_size=_PART_BYTES):
        yield memoryview(part)


def _open_store(source: str) -> ObjectStore:
    """Plain http is fine: what arrives is verified, and signed requests show no secret."""
    if "://" not in source:
        folder = Path(source)
        if not folder.is_dir():
            raise ModelFilesError(f"there is no folder {source}")
        return LocalStore(folder)
    try:
        if source.startswith("file:"):
            return from_url(source)
        return from_url(source, client_options={"allow_http": True})
    except ValueError as error:
        raise ModelFilesError(f"{source} is no place that models come from: {error}") from error


@contextmanager
def _alone_at(target: Path) -> Iterator[None]:
    """On a volume that pods share, one fetches and the others wait and find it done."""
    with target.with_name(f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
