"""`make check` for what is deployed: images, compose and manifests, by the linters in .venv-deploy and node_modules.

Usage: python -m tools.check_deploy. Prints one line per check, the output of those that fail, and ends with 1 for any.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.kustomize import OVERLAYS, REPOSITORY, render, resources

BIN: Final = REPOSITORY / ".venv-deploy/bin"
DOCKERFILES: Final = sorted((REPOSITORY / "deploy/images").glob("*.Dockerfile"))
COMPOSE_FILES: Final = sorted((REPOSITORY / "deploy").glob("compose*.yaml"))
# Of Kubernetes itself, and so checked by kubernetes-validate; every other one is a custom resource.
OWN_GROUPS: Final = (
    "",
    "apps",
    "policy",
    "networking.k8s.io",
    "rbac.authorization.k8s.io",
    "admissionregistration.k8s.io",
)


@dataclass(frozen=True, slots=True)
class Check:
    """One program to run; it fails by its exit code."""

    name: str
    command: tuple[str | Path, ...]
    stdin: str = ""


def main() -> int:
    """Runs every check, two at a time."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        return int(not all(list(pool.map(_passes, _checks(Path(folder))))))


def _checks(folder: Path) -> Iterator[Check]:
    manifests = [folder / f"{overlay}.yaml" for overlay in OVERLAYS]
    for path in manifests:
        path.write_text(render(path.stem))
    places = ("--directory", folder, "--directory", REPOSITORY / "deploy/images")
    frameworks = ("--framework", "kubernetes", "dockerfile")
    yield Check("checkov", (BIN / "checkov", "--config-file", REPOSITORY / "deploy/checkov.yaml", *places, *frameworks))
    validate = (BIN / "kubernetes-validate", "--strict", "--no-warn", "--quiet")
    yield Check("kubernetes-validate", (*validate, *manifests))
    yield Check("custom resources", ("node", REPOSITORY / "tools/check_custom_resources.mjs"), _custom_resources())
    yield Check("hadolint", (BIN / "hadolint", "--config", REPOSITORY / "deploy/images/hadolint.yaml", *DOCKERFILES))
    yield Check("compose", (BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", *COMPOSE_FILES))


def _custom_resources() -> str:
    """Of all overlays, each once, as JSON."""
    found = (resource for overlay in OVERLAYS for resource in resources(overlay))
    custom = (resource for resource in found if resource["apiVersion"].rpartition("/")[0] not in OWN_GROUPS)
    different = dict.fromkeys(json.dumps(resource, sort_keys=True) for resource in custom)
    return f"[{','.join(different)}]"


def _passes(check: Check) -> bool:
    started = time.monotonic()
    ended = subprocess.run(
        [*map(str, check.command)],
        input=check.stdin,
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        timeout=600,
    )
    passed = ended.returncode == 0
    print(f"{'ok  ' if passed else 'FAIL'} {check.name} ({time.monotonic() - started:.0f} s)", flush=True)
    if not passed:
        print(ended.stdout + ended.stderr, flush=True)
    return passed


if __name__ == "__main__":
    sys.exit(main())
