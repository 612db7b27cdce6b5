"""`make pin-images`: writes the digest of every base image behind its tag, as the registry says it now.

Usage: python -m tools.pin_images. Needs docker with buildx and a network. Dockerfiles, compose files and the Redis
component change in place; a digest that is there already is replaced.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[1]
FILES: Final = ("deploy/images/*.Dockerfile", "deploy/compose*.yaml", "deploy/k8s/components/redis/redis.yaml")
# Images of others, by their tag; those of ours are built, not pinned.
_IMAGE: Final = re.compile(r"\b((?:nvidia/cuda|python|ubuntu|valkey/valkey):[\w.-]+)(@sha256:[0-9a-f]{64})?")


def pinned(text: str, digest_of: Callable[[str], str]) -> str:
    """The text with `@sha256:...` behind every base image's tag."""
    return _IMAGE.sub(lambda image: f"{image[1]}@{digest_of(image[1])}", text)


def main() -> int:
    """Pins every file."""
    for path in (path for pattern in FILES for path in sorted(REPOSITORY.glob(pattern))):
        path.write_text(pinned(path.read_text(), _digest_of))
        print(path.relative_to(REPOSITORY))
    return 0


def _digest_of(image: str) -> str:
    command = ["docker", "buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}", image]
    digest = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise ValueError(f"{image}: {digest!r} is no digest")
    return digest


if __name__ == "__main__":
    sys.exit(main())
