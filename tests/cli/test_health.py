"""`visavis health` says by its exit code what a service says about itself."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer

from tests.patience import PATIENCE_SECONDS
from visavis.cli.main import main


@pytest.fixture
def address() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1))
    servicer = HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    servicer.set("liveness", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0)


def test_serving_not_serving_unknown_and_nobody_there(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    patience = ("--seconds", str(PATIENCE_SECONDS))
    assert main(["health", address, "--service", "liveness", *patience]) == 0
    assert main(["health", address, *patience]) == 1
    assert "NOT_SERVING" in capsys.readouterr().err
    assert main(["health", address, "--service", "kitchen", *patience]) == 1
    assert "NOT_FOUND" in capsys.readouterr().err
    assert main(["health", "127.0.0.1:1", "--seconds", "1"]) == 1
