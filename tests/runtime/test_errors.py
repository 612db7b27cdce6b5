"""Every domain error survives the network as itself, and nothing else gets out."""

import asyncio
import logging
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.patience import PATIENCE_SECONDS
from visavis.runtime import errors
from visavis.runtime.boundary import answer
from visavis.runtime.channels import MAX_MESSAGE_BYTES, channel_options, server_options
from visavis.runtime.errors import VisavisError, as_visavis_error, error_from_rpc
from visavis.v1 import decoder_pb2, decoder_pb2_grpc

SECRET = "password=hunter2 at /srv/secret.py"

EVERY_ERROR = [
    errors.InvalidInput("index must be 3", "chunk.header.chunk_index"),
    errors.NotFound("no avatar a1"),
    errors.SessionExists("open already"),
    errors.ModelMismatch("other weights"),
    errors.LeaseHeld("held by g2"),
    errors.LeaseLost("went to a later claim"),
    errors.SessionMoved("goes on elsewhere"),
    errors.DeadlineMissed("config must come within 10 s"),
    errors.SessionAborted("half-closed without end_of_audio"),
    errors.LimitExceeded("3 MiB at most"),
    errors.CapacityExhausted("all 4 slots are taken", 2.5),
    errors.StageUnavailable("starting", 1.25),
    errors.StagesUnsettled("not yet", 2.0),
    errors.WorkerLost("gone"),
    errors.Draining("shutting down", 0.0),
    errors.StateStoreUnavailable("Redis is away"),
    errors.CheckpointUnreadable("of a newer gateway"),
    errors.InternalError("a1b2c3"),
]

Handle = Callable[[Any], Awaitable[Any]]


class Servicer(decoder_pb2_grpc.DecoderServiceServicer):
    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    async def EncodePortrait(self, request: Any, context: Any) -> Any:
        return await answer(context, self._handle(request), session_id="s7")


@asynccontextmanager
async def stub_of(handle: Handle) -> AsyncIterator[Any]:
    server = grpc.aio.server(options=server_options())
    decoder_pb2_grpc.add_DecoderServiceServicer_to_server(Servicer(handle), server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=channel_options()) as channel:
            yield decoder_pb2_grpc.DecoderServiceStub(channel)
    finally:
        await server.stop(None)


async def failure_of(handle: Handle) -> grpc.aio.AioRpcError:
    async with stub_of(handle) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stub.EncodePortrait(decoder_pb2.EncodePortraitRequest(), timeout=PATIENCE_SECONDS)
    return failure.value


def raising(error: BaseException) -> Handle:
    async def handle(request: Any) -> Any:
        raise error

    return handle


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: type(error).__name__)
async def test_an_error_comes_back_as_itself(error: VisavisError) -> None:
    received = await failure_of(raising(error))
    assert received.code() == error.code
    again = error_from_rpc(received)
    assert type(again) is type(error)
    assert again.message == error.message
    assert vars(again) == vars(error)


def test_every_error_class_is_tried_and_has_a_reason_of_its_own() -> None:
    known = {type(error) for error in EVERY_ERROR}
    assert known == set(errors._BY_REASON.values())
    assert len({error.reason for error in EVERY_ERROR}) == len(EVERY_ERROR)


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: type(error).__name__)
def test_an_error_crosses_the_workers_pipe(error: VisavisError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.args, vars(again)) == (type(error), error.args, vars(error))


async def test_details_follow_google_rpc() -> None:
    status: Any = rpc_status.from_call(await failure_of(raising(EVERY_ERROR[0])))  # type: ignore[arg-type]
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(bad)
    assert (info.domain, info.reason) == ("visavis", "INVALID_INPUT")
    assert bad.field_violations[0].field == "chunk.header.chunk_index"


async def test_an_unknown_exception_shows_an_id_and_no_text(caplog: pytest.LogCaptureFixture) -> None:
    received = await failure_of(raising(RuntimeError(SECRET)))
    assert received.code() == grpc.StatusCode.INTERNAL
    everything = f"{received.details()} {received.trailing_metadata()} {received.debug_error_string()}"
    assert SECRET not in everything
    assert "RuntimeError" not in everything
    again = error_from_rpc(received)
    assert isinstance(again, errors.InternalError)
    assert again.error_id in (received.details() or "")
    entry = next(record for record in caplog.records if getattr(record, "error_id", None) == again.error_id)
    assert entry.exc_info is not None
    assert SECRET in str(entry.exc_info[1])
    assert vars(entry)["session_id"] == "s7"


async def test_a_cancellation_of_our_own_ends_the_call_with_a_status() -> None:
    assert (await failure_of(raising(asyncio.CancelledError()))).code() == grpc.StatusCode.UNAVAILABLE


async def test_the_first_domain_error_of_a_group_is_told() -> None:
    group = ExceptionGroup("tasks", [ValueError(SECRET), errors.NotFound("no avatar a1")])
    assert (await failure_of(raising(group))).code() == grpc.StatusCode.NOT_FOUND


async def test_a_client_that_leaves_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def handle(request: Any) -> Any:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    with caplog.at_level(logging.WARNING):
        async with stub_of(handle) as stub:
            call = stub.EncodePortrait(decoder_pb2.EncodePortraitRequest())
            await began.wait()
            call.cancel()
            async with asyncio.timeout(PATIENCE_SECONDS):
                await ended.wait()
            await asyncio.sleep(0.05)
    assert not [record for record in caplog.records if record.name.startswith(("visavis", "grpc"))]


async def test_a_message_over_the_limit_is_a_limit_exceeded() -> None:
    async def handle(request: Any) -> Any:
        return decoder_pb2.EncodePortraitResponse()

    async with stub_of(handle) as stub:
        await stub.EncodePortrait(decoder_pb2.EncodePortraitRequest(portrait=bytes(MAX_MESSAGE_BYTES - 100)))
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stub.EncodePortrait(decoder_pb2.EncodePortraitRequest(portrait=bytes(MAX_MESSAGE_BYTES + 1)))
    assert isinstance(error_from_rpc(failure.value), errors.LimitExceeded)


async def test_an_unreachable_server_is_an_unavailable_stage() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1", options=channel_options()) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await decoder_pb2_grpc.DecoderServiceStub(channel).EncodePortrait(
                decoder_pb2.EncodePortraitRequest(), timeout=PATIENCE_SECONDS
            )
    assert isinstance(error_from_rpc(failure.value), errors.StageUnavailable)


def test_a_server_that_ends_as_it_is_called_is_an_unavailable_stage() -> None:
    no_metadata = grpc.aio.Metadata()
    cut_off = grpc.aio.AioRpcError(grpc.StatusCode.CANCELLED, no_metadata, no_metadata, "CANCELLED", None)
    assert isinstance(error_from_rpc(cut_off), errors.StageUnavailable)


def test_a_long_message_still_fits_into_trailing_metadata() -> None:
    status = errors.status_from_error(errors.InvalidInput("x" * 100_000))
    assert len(status.SerializeToString()) < 4096


def test_a_status_that_fits_nothing_is_opaque() -> None:
    no_metadata = grpc.aio.Metadata()
    strange = grpc.aio.AioRpcError(grpc.StatusCode.DATA_LOSS, no_metadata, no_metadata, SECRET, SECRET)
    assert SECRET not in error_from_rpc(strange).message


def test_a_domain_error_is_told_as_it_is() -> None:
    error = errors.NotFound("no avatar a1")
    assert as_visavis_error(error) is error
