"""Fetches the exact state of a session from the generator that still has it, and hands it to the own worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from services.generator.transfer_ids import arriving_id
from visavis.runtime.channels import open_channel
from visavis.runtime.errors import StageUnavailable, VisavisError, error_from_rpc
from visavis.runtime.settings import TlsSettings
from visavis.runtime.worker import Worker, WorkerSession
from visavis.v1 import generator_pb2, generator_pb2_grpc


@asynccontextmanager
async def state_of_peer(
    worker: Worker, session_id: str, peer: generator_pb2.Peer, tls: TlsSettings, *, timeout_seconds: float
) -> AsyncIterator[None]:
    """Inside the block the worker has the state, for the session that is opened there with `resume.peer`.

    Raises StageUnavailable where it does not come whole, in time, and of this model: then the peer goes on with it.
    """
    fetching = _Fetching(worker, session_id)
    try:
        try:
            await fetching.run(peer, tls, timeout_seconds)
        except grpc.aio.AioRpcError as error:
            raise _unavailable(error_from_rpc(error)) from error
        except VisavisError as error:
            raise _unavailable(error) from error
        yield
    finally:
        fetching.close()


class _Fetching:
    def __init__(self, worker: Worker, session_id: str) -> None:
        self._worker = worker
        self._session_id = session_id
        self._arriving: WorkerSession | None = None

    async def run(self, peer: generator_pb2.Peer, tls: TlsSettings, timeout_seconds: float) -> None:
        request = generator_pb2.TransferSessionRequest(session_id=self._session_id, fencing_token=peer.fencing_token)
        async with open_channel(peer.address, tls) as channel:
            call: Any = generator_pb2_grpc.GeneratorServiceStub(channel).TransferSession(
                request, timeout=timeout_seconds
            )
            try:
                async for response in call:
                    await self._take(response)
            finally:
                call.cancel()

    async def _take(self, response: generator_pb2.TransferSessionResponse) -> None:
        match response.WhichOneof("response"), self._arriving:
            case "state", None:
                _, self._arriving = await self._worker.open(arriving_id(self._session_id), response.state)
            case "part", WorkerSession() as arriving:
                arriving.submit(response.part)
            case _:
                raise StageUnavailable("the peer's messages are out of order")

    def close(self) -> None:
        if self._arriving is not None:
            self._arriving.close()


def _unavailable(error: VisavisError) -> StageUnavailable:
    return StageUnavailable(f"the session's state does not come from its peer: {error.message}")
