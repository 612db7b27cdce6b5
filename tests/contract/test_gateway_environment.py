"""The gateway's own environment: its extra is installed alone, there is no torch in it, and the gateway runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from visavis.runtime.embedded_redis import EmbeddedRedis

REPOSITORY = Path(__file__).resolve().parents[2]
ABSENT = ["torch", "diffusers", "transformers", "safetensors", "av", "PIL"]

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with `visavis[gateway]` and nothing else."""
    folder = tmp_path_factory.mktemp("gateway")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    constraints = str(REPOSITORY / "constraints.txt")
    subprocess.run([*install, "--constraint", constraints, f"{wheel}[gateway]"], check=True)
    return python


@pytest.fixture
def gateway(python: Path) -> Iterator[subprocess.Popen[str]]:
    """The gateway from the repository in that environment, on free ports, with a Valkey server."""
    with EmbeddedRedis() as redis:
        variables = {"REDIS_URL": redis.url, "LISTEN_ADDRESS": "127.0.0.1:0", "METRICS_ADDRESS": "127.0.0.1:0"}
        environment = os.environ | {f"VISAVIS_{name}": value for name, value in variables.items()}
        environment.pop("PYTHONPATH", None)
        process = subprocess.Popen(
            [python, "-m", "gateway"], cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True
        )
        with process:
            yield process
            process.kill()


def test_its_environment_has_no_torch_and_no_picture_codecs(python: Path) -> None:
    program = "import importlib.util, sys; print(*filter(importlib.util.find_spec, sys.argv[1:]))"
    found = subprocess.run([python, "-c", program, *ABSENT], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_it_starts_serves_and_stops_there(gateway: subprocess.Popen[str]) -> None:
    assert gateway.stdout is not None
    ready = json.loads(gateway.stdout.readline())
    assert ready["event"] == "ready"
    with grpc.insecure_channel(ready["address"]) as channel:
        # Its published types lack the calls.
        health: Any = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=60, wait_for_ready=True)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    gateway.send_signal(signal.SIGTERM)
    assert gateway.wait(timeout=60) == 0
