"""A service as a real process, and streams to it as the gateway opens them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psutil

from tests.patience import PATIENCE_SECONDS
from visavis.runtime.channels import channel_options
from visavis.runtime.errors import VisavisError, error_from_rpc

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class ServiceProcess:
    """A service that says SERVING."""

    popen: subprocess.Popen[bytes]
    address: str
    instance_id: str

    def channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self.address, options=channel_options())

    def worker(self) -> psutil.Process:
        (worker,) = psutil.Process(self.popen.pid).children()
        return worker


@contextmanager
def service_process(module: str, redis_url: str, **settings: str) -> Iterator[ServiceProcess]:
    """Runs `python -m module` on the tiny preset until the block ends, then drains it."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("VISAVIS_")},
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "VISAVIS_MODEL": "tiny",
        "VISAVIS_DEVICE": "cpu",
        "VISAVIS_DTYPE": "float32",
        "VISAVIS_WORKER_THREADS": "1",
        # Bits are compared; with others in its batch a session equals itself alone within a tolerance only.
        "VISAVIS_MAX_BATCH": "1",
        "VISAVIS_LISTEN_ADDRESS": "127.0.0.1:0",
        "VISAVIS_REDIS_URL": redis_url,
        "VISAVIS_DRAIN_SECONDS": "1",
        "VISAVIS_REDIS_TIMEOUT_SECONDS": str(PATIENCE_SECONDS),
        "VISAVIS_CONFIG_TIMEOUT_SECONDS": str(PATIENCE_SECONDS),
        "VISAVIS_WORKER_SILENCE_SECONDS": str(PATIENCE_SECONDS),
        "VISAVIS_LOG_LEVEL": "WARNING",
        **settings,
    }
    popen = subprocess.Popen([sys.executable, "-m", module], env=environment, stdout=subprocess.PIPE)
    try:
        assert popen.stdout is not None
        line = popen.stdout.readline()
        assert line, f"{module} ended with {popen.wait()} before it was ready"
        ready = json.loads(line)
        assert ready["event"] == "ready"
        yield ServiceProcess(popen, ready["address"], ready["instance_id"])
    finally:
        popen.send_signal(signal.SIGTERM)
        try:
            popen.wait(timeout=2 * PATIENCE_SECONDS)
        finally:
            popen.kill()
            popen.wait()


class StageStream:
    """One session's stream; `async with`. What the service refuses is raised as the domain error it stands for."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def __aenter__(self) -> StageStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._call.cancel()

    async def send(self, request: Any) -> None:
        try:
            await self._call.write(request)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error

    async def receive(self) -> Any:
        """The next response; None at the end of the stream."""
        try:
            response = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error
        if response is grpc.aio.EOF:
            if await self._call.code() != grpc.StatusCode.OK:
                raise await self._error()
            return None
        return response

    async def half_close(self) -> None:
        await self._call.done_writing()

    async def exchange(self, requests: Sequence[Any]) -> list[Any]:
        """Sends all requests, leaves the stream open and returns all responses until the service ends it."""
        for request in requests:
            await self.send(request)
        responses = []
        while (response := await self.receive()) is not None:
            responses.append(response)
        return responses

    async def rest(self) -> list[Any]:
        """Half-closes and returns all responses until the end."""
        await self.half_close()
        responses = []
        while (response := await self.receive()) is not None:
            responses.append(response)
        return responses

    async def _error(self) -> VisavisError:
        error = grpc.aio.AioRpcError(
            await self._call.code(),
            await self._call.initial_metadata(),
            await self._call.trailing_metadata(),
            details=await self._call.details(),
        )
        return error_from_rpc(error)
