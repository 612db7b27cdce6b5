"""`visavis health`: asks a service for its health, as the health check of an image does."""

import argparse
from typing import Any

from visavis.cli.errors import CommandError


def run(options: argparse.Namespace) -> int:
    """Returns 0 for SERVING; raises CommandError for every other answer."""
    try:
        import grpc
        from grpc_health.v1 import health_pb2, health_pb2_grpc
    except ModuleNotFoundError as error:
        raise CommandError(f"{error.name} is not installed: pip install 'visavis[gateway]'") from error
    with grpc.insecure_channel(options.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=options.service), timeout=options.seconds)
        except grpc.RpcError as error:
            raise CommandError(f"{options.address} gives no health: {error.code().name}") from error
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise CommandError(f"{options.address} is {name}")
    print(name)
    return 0
