"""`python -m gateway` as an operator sees it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import urllib.request

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse

from tests.gateway.gateway_process import ROOT, gateway_process, health_of
from tests.gateway.talk_client import LIMIT_SECONDS
from tests.reserved_port import reserved_port
from visavis.runtime.embedded_redis import EmbeddedRedis
from visavis.v1.operations_pb2 import DrainRequest
from visavis.v1.operations_pb2_grpc import OperationsServiceStub
from visavis.v1.talking_head_pb2 import GetServerInfoRequest
from visavis.v1.talking_head_pb2_grpc import TalkingHeadServiceStub

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("how", ["SIGTERM", "Drain"])
async def test_it_serves_and_stops_on_sigterm_or_drain(redis_url: str, how: str) -> None:
    with gateway_process(redis_url, OPERATIONS_ADDRESS="127.0.0.1:0") as gateway:
        ready = gateway.wait_ready()
        assert ready["stage"] == "gateway"
        assert await health_of(ready["address"]) == SERVING
        async with grpc.aio.insecure_channel(ready["address"]) as channel:
            assert (
                await TalkingHeadServiceStub(channel).GetServerInfo(GetServerInfoRequest(), timeout=LIMIT_SECONDS)
            ).version
        text = await asyncio.to_thread(_page, f"http://{ready['metrics']}/metrics")
        assert 'visavis_slots{stage="gateway"} 1000.0' in text
        assert "visavis_time_to_first_frame_seconds_bucket" in text
        if how == "SIGTERM":
            gateway.process.send_signal(signal.SIGTERM)
        else:
            async with grpc.aio.insecure_channel(ready["operations"]) as channel:
                assert (await OperationsServiceStub(channel).Drain(DrainRequest(), timeout=LIMIT_SECONDS)).sessions == 0
        assert await asyncio.to_thread(gateway.process.wait, timeout=LIMIT_SECONDS) == 0


async def test_it_is_not_serving_until_redis_is_there() -> None:
    with (
        reserved_port() as redis_port,
        reserved_port() as own_port,
        gateway_process(
            f"redis://127.0.0.1:{redis_port}/0", LISTEN_ADDRESS=f"127.0.0.1:{own_port}", HEARTBEAT_SECONDS="0.1"
        ) as gateway,
    ):
        address = f"127.0.0.1:{own_port}"
        assert await _health_when_up(address) == NOT_SERVING
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await TalkingHeadServiceStub(channel).GetServerInfo(GetServerInfoRequest(), timeout=LIMIT_SECONDS)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        with EmbeddedRedis(port=redis_port):
            assert gateway.wait_ready()["address"] == address
            assert await health_of(address) == SERVING


def test_wrong_settings_are_named() -> None:
    with gateway_process("redis://127.0.0.1:1/0", WINDOW_CHUNKS="none") as gateway:
        assert gateway.process.wait(timeout=LIMIT_SECONDS) == 2


def test_it_imports_neither_torch_nor_picture_codecs() -> None:
    program = (
        "import sys, gateway.server;"
        "heavy = {'torch', 'av', 'PIL', 'diffusers', 'transformers', 'safetensors'};"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


async def _health_when_up(address: str) -> int:
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            try:
                return await health_of(address)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)


def _page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=LIMIT_SECONDS) as page:
        text: str = page.read().decode()
    return text
