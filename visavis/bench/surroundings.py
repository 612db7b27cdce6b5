"""What a result has to name: commit, hardware, versions, date and command."""

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import psutil

import visavis

_REPOSITORY = Path(visavis.__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Of one run of a benchmark.

    commit: with "+changes" when the tree differs from it; "unknown" outside a checkout.
    """

    commit: str
    date: str
    command: str
    processor: str
    cores: int
    memory_bytes: int
    python: str
    torch: str
    grpcio: str


def surroundings() -> Surroundings:
    """Of this process, now."""
    return Surroundings(
        commit=_commit(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        python=platform.python_version(),
        torch=_version("torch"),
        grpcio=_version("grpcio"),
    )


def _commit() -> str:
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        changes = "+changes" if _git("status", "--porcelain", "--untracked-files=no") else ""
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit + changes


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_REPOSITORY), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _processor() -> str:
    """The model's name, and what torch's matrix kernels can use of it."""
    fields: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    except OSError:
        return platform.processor() or platform.machine()
    flags = fields.get("flags", "").split()
    known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{fields.get('model name', platform.machine())} ({', '.join(known) or 'no AVX2'})"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
