"""The gateway as a process of its own."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2

from tests.gateway.talk_client import LIMIT_SECONDS

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class GatewayProcess:
    """`python -m gateway`, starting or running."""

    process: subprocess.Popen[str]
    lines: queue.Queue[str]

    def wait_ready(self, timeout: float = LIMIT_SECONDS) -> dict[str, str]:
        """The line that says it is ready."""
        ready: dict[str, str] = json.loads(self.lines.get(timeout=timeout))
        assert ready["event"] == "ready"
        return ready


@contextmanager
def gateway_process(
    redis_url: str, python: str = sys.executable, folder: Path = ROOT, **variables: str
) -> Iterator[GatewayProcess]:
    """Starts the gateway in `folder`; ends it, whatever happened."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("VISAVIS_", "PYTHON"))}
    settings = {
        "REDIS_URL": redis_url,
        "REDIS_TIMEOUT_SECONDS": "30",
        "LISTEN_ADDRESS": "127.0.0.1:0",
        "DRAIN_SECONDS": "1",
        **variables,
    }
    process = subprocess.Popen(
        [python, "-m", "gateway"],
        cwd=folder,
        env={**environment, **{f"VISAVIS_{name}": value for name, value in settings.items()}},
        stdout=subprocess.PIPE,
        text=True,
    )
    lines: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=_read_lines, args=(process, lines), daemon=True)
    reader.start()
    try:
        yield GatewayProcess(process, lines)
    finally:
        process.kill()
        process.wait()
        reader.join()
        assert process.stdout is not None
        process.stdout.close()


async def health_of(address: str) -> int:
    """What grpc.health.v1 says about the public service."""
    async with grpc.aio.insecure_channel(address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        response = await check(
            health_pb2.HealthCheckRequest(service="visavis.v1.TalkingHeadService"), timeout=LIMIT_SECONDS
        )
    return int(response.status)


def _read_lines(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
