"""The status with which a call ended, kept from grpc.aio's own mistake.

A write that fails because the server has just ended the call makes grpc.aio replace the server's status by INTERNAL,
"Internal error from Core" (grpc issue 36066). The first status is the true one. Clients, the SDK's and the gateway's
of the stages, watch their streams for it.
"""

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import grpc.aio

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class FinalStatus:
    """What the server, or the transport, said last."""

    code: grpc.StatusCode
    message: str
    trailing_metadata: tuple[tuple[str, str | bytes], ...]

    def as_error(self) -> grpc.aio.AioRpcError:
        """As grpc.aio would have raised it."""
        return grpc.aio.AioRpcError(
            self.code, grpc.aio.Metadata(), grpc.aio.Metadata(*self.trailing_metadata), self.message
        )


class StatusWatch:
    """`status` is the first status of `call`; None while it runs."""

    def __init__(self, call: grpc.aio.Call) -> None:
        self.status: FinalStatus | None = None
        call.add_done_callback(self._note)

    def _note(self, call: grpc.aio.Call) -> None:
        if self.status is None:
            metadata = _at_once(call.trailing_metadata()) or ()
            self.status = FinalStatus(_at_once(call.code()), _at_once(call.details()) or "", tuple(metadata))


def _at_once(coroutine: Coroutine[Any, Any, _Value]) -> _Value:
    """The result of a coroutine that need not wait, as the call is done."""
    try:
        coroutine.send(None)
    except StopIteration as result:
        value: _Value = result.value
        return value
    coroutine.close()
    raise RuntimeError("a call that is done has its status")
