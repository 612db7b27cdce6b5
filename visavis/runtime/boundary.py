"""The boundary of every RPC handler: whatever escapes the work becomes a status, and nothing else leaks."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError

from visavis.runtime.errors import (
    InvalidInput,
    SessionAborted,
    StageUnavailable,
    VisavisError,
    as_visavis_error,
    status_from_error,
)

DETAILS_METADATA_KEY = "grpc-status-details-bin"

logger = logging.getLogger(__name__)

T = TypeVar("T")


async def abort(context: Any, error: VisavisError) -> NoReturn:
    """Ends an RPC with the error's status; always raises (grpc's AbortError, which belongs out of the handler)."""
    status = status_from_error(error)
    trailing_metadata = ((DETAILS_METADATA_KEY, status.SerializeToString()),)
    await context.abort(error.code, status.message, trailing_metadata)
    raise AssertionError("abort returned")


async def answer(context: Any, work: Awaitable[T], **log_fields: object) -> T | None:
    """The boundary of every handler: awaits `work` and turns whatever escapes it into a status.

    Cancellation never leaves a handler (grpc would send no status and the client would hang): if the client is
    still there it gets UNAVAILABLE, if it is gone the handler returns quietly. Returns None only in that last case.
    """
    try:
        return await work
    except grpc.aio.AbortError:
        raise
    except asyncio.CancelledError:
        error: VisavisError = StageUnavailable("the server has stopped this call; try again")
    except Exception as unexpected:  # the boundary: nothing may pass unmapped
        error = as_visavis_error(unexpected, **log_fields)
    await _abort_unless_gone(context, error)
    return None


async def next_request(requests: AsyncIterator[T]) -> T | None:
    """The next message of a request stream, None after the last; raises InvalidInput for bytes that are none."""
    try:
        return await anext(requests, None)
    except DecodeError:
        raise unreadable_request() from None


def unreadable_request() -> InvalidInput:
    """The error for bytes that are no message."""
    return InvalidInput("the message cannot be read: it is not of the contract's type")


async def write(context: Any, message: Any) -> None:
    """Sends a message of a stream of answers; raises SessionAborted when the other side is gone."""
    try:
        await context.write(message)
    except grpc.aio.BaseError as error:
        raise SessionAborted("the other side of the stream is gone") from error


async def _abort_unless_gone(context: Any, error: VisavisError) -> None:
    try:
        await abort(context, error)
    except grpc.aio.AbortError:
        raise
    except (grpc.aio.BaseError, asyncio.CancelledError):  # nobody left to tell
        logger.debug("client gone before its status", extra={"reason": error.reason})
