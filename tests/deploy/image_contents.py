"""What an image would have, without Docker: the files that its Dockerfile copies and the distributions of its role.

An image is stood in for by a folder with the copied files, the library as its wheel has it, and this very environment
with everything hidden that the role's extra does not bring.
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.containers import dockerfile
from tools.kustomize import REPOSITORY

# Hides modules from every process that starts with this file on its path, workers included.
_HIDE: Final = """
import sys

HIDDEN, BROUGHT, REPOSITORY = {hidden!r}, {brought!r}, {repository!r}
finders = list(sys.meta_path)

class OnlyTheImage:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            return None
        specs = (finder.find_spec(name, path, target) for finder in finders if hasattr(finder, "find_spec"))
        return next((spec for spec in specs if spec is not None), None)

    @staticmethod
    def find_distributions(*arguments, **names):
        for finder in finders:
            for found in getattr(finder, "find_distributions", lambda *_, **__: ())(*arguments, **names):
                if found.metadata["Name"].lower().replace("_", "-").replace(".", "-") in BROUGHT:
                    yield found

sys.meta_path[:] = [OnlyTheImage]
sys.path[:] = [entry for entry in sys.path if entry != REPOSITORY]
"""


@dataclass(frozen=True, slots=True)
class Copy:
    """One COPY of a Dockerfile, from the build context."""

    sources: tuple[str, ...]
    target: str


def stages(role: str) -> list[list[str]]:
    """The instructions of each stage, its FROM first; continued lines joined."""
    text = re.sub(r"\\\n", " ", dockerfile(role))
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    first = next(index for index, line in enumerate(lines) if line.startswith("FROM "))
    found: list[list[str]] = []
    for line in lines[first:]:
        found.append([line]) if line.startswith("FROM ") else found[-1].append(line)
    return found


def copies(stage: list[str]) -> list[Copy]:
    """Those from the build context, not from another stage."""
    words = [line.split()[1:] for line in stage if line.startswith("COPY ") and "--from" not in line]
    return [Copy(tuple(each[:-1]), each[-1]) for each in words]


@cache
def build_context() -> frozenset[str]:
    """Paths of the files that git knows and .dockerignore leaves in."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.splitlines()
    kept = (file for file in files if not is_ignored(file, dockerignore()))
    return frozenset(file for file in kept if (REPOSITORY / file).is_file())


@cache
def dockerignore() -> tuple[str, ...]:
    """The patterns of .dockerignore."""
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    return tuple(line for line in lines if line and line[0] != "#")


def is_ignored(file: str, patterns: Sequence[str]) -> bool:
    """The last pattern that fits a file, or a folder that it is in, decides."""
    path = PurePosixPath(file)
    ignored = False
    for pattern in patterns:
        wanted = pattern.removeprefix("!").removeprefix("**/")
        anywhere = "**/" in pattern
        parts = [path.name, *path.parts] if anywhere else [file, *map(str, path.parents)]
        if any(fnmatch.fnmatchcase(part, wanted) for part in parts):
            ignored = not pattern.startswith("!")
    return ignored


def copied_files(copy: Copy, context: frozenset[str]) -> dict[str, str]:
    """Path in the context -> path below the working directory. AssertionError for a source without files."""
    found: dict[str, str] = {}
    for source in copy.sources:
        matching = [
            file for file in context if fnmatch.fnmatchcase(file, source) and file.count("/") == source.count("/")
        ]
        below = [file for file in context if file.startswith(f"{source}/")]
        assert matching or below, f"COPY {source}: nothing of it is in the build context"
        folder = "" if copy.target == "./" else copy.target.rstrip("/")
        found.update({file: str(PurePosixPath(folder, PurePosixPath(file).name)) for file in matching})
        found.update({file: str(PurePosixPath(folder, PurePosixPath(file).relative_to(source))) for file in below})
    return found


def write_stage(role: str, stage: int, target: Path) -> None:
    """Copies what the stage copies into its working directory into `target`."""
    context = build_context()
    for copy in copies(stages(role)[stage]):
        for source, path in copied_files(copy, context).items():
            if not path.startswith("/"):
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(REPOSITORY / source, target / path)


def write_library(role: str, target: Path) -> None:
    """Builds the wheel from what the first stage copies, and nothing else, and unpacks it into `target`."""
    source = target.with_name(f"{target.name}-source")
    write_stage(role, 0, source)
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-build-isolation", "--no-deps", "--quiet"]
    subprocess.run([*command, "--no-compile", "--target", target, source], check=True, timeout=300)


def hide_the_rest(role: str, site: Path) -> None:
    """Writes what hides every distribution that the role's extra does not bring."""
    brought = {*distributions(role), "visavis"}
    top_levels = importlib.metadata.packages_distributions()
    hidden = [name for name, owners in top_levels.items() if not brought & set(map(canonicalize_name, owners))]
    text = _HIDE.format(hidden=set(hidden), brought=brought, repository=str(REPOSITORY))
    (site / "sitecustomize.py").write_text(text)


def distributions(role: str) -> Iterator[str]:
    """What the extras that the role's Dockerfile installs bring, as it is installed here."""
    extras = set(re.findall(r"'\.(\[[\w,-]+\])'", dockerfile(role)))
    (asked,) = extras
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    pending = [Requirement(line) for line in project["dependencies"]]
    pending += [Requirement(f"visavis{asked}")]
    seen: set[str] = set()
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        key = json.dumps([name, sorted(requirement.extras)])
        if key in seen:
            continue
        seen.add(key)
        if name == "visavis":
            pending += [
                Requirement(line) for extra in requirement.extras for line in project["optional-dependencies"][extra]
            ]
            continue
        yield name
        wanted = [{"extra": extra} for extra in (*requirement.extras, "")]
        inner = map(Requirement, importlib.metadata.requires(name) or ())
        pending += [each for each in inner if not each.marker or any(map(each.marker.evaluate, wanted))]
