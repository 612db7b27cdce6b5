"""docs/settings.md is what the code reads, and the manifests set nothing that nobody reads."""

from __future__ import annotations

import re
from pathlib import Path

from tests.deploy.containers import ROLES, build
from tools.kustomize import REPOSITORY

PAGE = REPOSITORY / "docs/settings.md"
STAGES = ("audio-encoder", "generator", "decoder")
# Defaults that the page puts into words, as they differ by service or machine.
IN_WORDS = {
    "VISAVIS_LISTEN_ADDRESS",
    "VISAVIS_ADVERTISE_ADDRESS",
    "VISAVIS_INSTANCE_ID",
    "VISAVIS_SLOTS",
    "VISAVIS_TLS_SERVER_NAME",
}


def documented() -> dict[str, tuple[str, str]]:
    """Variable -> (read by, default)."""
    rows = re.findall(r"^\| `(VISAVIS_\w+)` \| ([^|]+) \| ([^|]+) \|", PAGE.read_text(), re.M)
    return {name: (readers, default) for name, readers, default in rows}


def read_by_the_code(files: Path) -> dict[str, dict[str, str]]:
    """Variable -> role -> default."""
    found: dict[str, dict[str, str]] = {}
    for role in ROLES:
        for name, default in build(role, {}, files)[1].items():
            found.setdefault(name, {})[role] = default
    return found


def test_every_variable_is_documented_and_no_other(tmp_path: Path) -> None:
    assert set(documented()) == set(read_by_the_code(tmp_path))


def test_readers_are_those_that_the_page_says(tmp_path: Path) -> None:
    groups = {"all": set(ROLES), "stages": set(STAGES)}
    for name, roles in read_by_the_code(tmp_path).items():
        readers = documented()[name][0]
        assert groups.get(readers, set(readers.split(", "))) == set(roles), name


def test_defaults_are_those_that_the_page_says(tmp_path: Path) -> None:
    for name, roles in read_by_the_code(tmp_path).items():
        if name in IN_WORDS:
            continue
        assert {default or "none" for default in roles.values()} == {documented()[name][1]}, name
