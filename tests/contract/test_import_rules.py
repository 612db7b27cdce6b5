"""What may not be loaded is not loaded: import-linter reads the source, this imports it and looks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TORCH = ["torch", "diffusers", "transformers", "accelerate", "safetensors"]
PICTURES = ["av", "PIL"]

# Imports every module below a package and prints those of the forbidden that came along.
IMPORT_ALL = """
import importlib, pkgutil, sys
package, *forbidden = sys.argv[1:]
root = importlib.import_module(package)
for module in pkgutil.walk_packages(root.__path__, package + "."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(*(name for name in forbidden if name in sys.modules))
"""


def loaded(package: str, forbidden: list[str]) -> list[str]:
    """Returns what of `forbidden` a fresh interpreter has loaded after importing all of `package`."""
    command = [sys.executable, "-c", IMPORT_ALL, package, *forbidden]
    outcome = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout.split()


@pytest.mark.parametrize("package", ["gateway", "visavis.client", "visavis.runtime", "visavis.cli"])
def test_loads_no_torch(package: str) -> None:
    assert loaded(package, TORCH) == []


@pytest.mark.parametrize("package", ["gateway", "visavis.runtime"])
def test_loads_no_picture_codecs(package: str) -> None:
    assert loaded(package, PICTURES) == []


def test_models_load_no_grpc() -> None:
    assert loaded("visavis.models", ["grpc"]) == []


@pytest.mark.parametrize("package", ["visavis.client", "visavis.runtime", "visavis.cli", "visavis.models"])
def test_the_library_loads_no_service(package: str) -> None:
    assert loaded(package, ["services", "gateway"]) == []


@pytest.mark.parametrize("name", ["audio_encoder", "generator", "decoder"])
def test_services_load_no_other_service(name: str) -> None:
    others = {"services.audio_encoder", "services.generator", "services.decoder", "gateway"} - {f"services.{name}"}
    assert loaded(f"services.{name}", sorted(others)) == []
