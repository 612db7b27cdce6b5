"""The stages' stream handler on a real gRPC server with a real worker."""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.patience import PATIENCE_SECONDS
from tests.runtime.conftest import StartWorker, worker_settings
from tests.runtime.messages import chunk, chunk_request, config_request, resume_request, rewind_request
from tests.runtime.tone_engine import CRASH_OPEN, CRASH_SUBMIT, HANG, KILL, REFUSE, SECRET, Gate, ToneSettings
from tests.runtime.tone_service import RULES
from visavis.runtime import lease_keeper
from visavis.runtime.channels import channel_options, server_options
from visavis.runtime.errors import (
    CapacityExhausted,
    DeadlineMissed,
    Draining,
    InternalError,
    InvalidInput,
    LeaseHeld,
    LeaseLost,
    SessionExists,
    SessionMoved,
    StageUnavailable,
    StateStoreUnavailable,
    VisavisError,
    WorkerLost,
    error_from_rpc,
)
from visavis.runtime.lease_keeper import leased_sessions
from visavis.runtime.leases import LeaseStore
from visavis.runtime.redis_connection import RedisClient, connect_redis
from visavis.runtime.settings import RedisSettings
from visavis.runtime.slots import SlotPool
from visavis.runtime.stage import CompleteReady, SessionScope, Stage, StageSession, no_scope
from visavis.runtime.telemetry import Metrics
from visavis.runtime.tracing import NO_TRACING
from visavis.runtime.worker import Worker
from visavis.v1 import audio_encoder_pb2, audio_encoder_pb2_grpc, generator_pb2

REPOSITORY = Path(__file__).parents[2]


class Servicer(audio_encoder_pb2_grpc.AudioEncoderServiceServicer):
    def __init__(self, stage: Stage, scope: SessionScope) -> None:
        self._stage = stage
        self._scope = scope

    async def Encode(self, request_iterator: Any, context: Any) -> None:
        await self._stage.serve_session(request_iterator, context, RULES, self._scope)


@dataclass
class Served:
    """A stage behind a real server."""

    stub: Any
    address: str
    slots: SlotPool
    metrics: Metrics
    worker: Worker

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, {"stage": "audio_encoder", **labels}) or 0.0

    async def wait_until_free(self) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.slots.wait_idle()

    async def wait_for_items(self, number: int) -> None:
        """Until so many are in the stage."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.metric("visavis_chunks_in_flight") != number:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


Serve = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture
def serve(start_worker: StartWorker) -> Serve:
    @asynccontextmanager
    async def served(
        engine: ToneSettings | None = None,
        *,
        slots: int = 4,
        max_in_flight: int = 3,
        scope: SessionScope = no_scope,
        hang_seconds: float = 300.0,
        config_timeout_seconds: float = PATIENCE_SECONDS,
    ) -> AsyncIterator[Served]:
        worker = await start_worker(engine or ToneSettings(slots=slots), worker_settings(hang_seconds=hang_seconds))
        pool, metrics = SlotPool(slots, retry_after_seconds=1.5), Metrics("audio_encoder")
        stage = Stage(
            worker,
            pool,
            metrics,
            NO_TRACING,
            max_in_flight=max_in_flight,
            config_timeout_seconds=config_timeout_seconds,
        )
        server = grpc.aio.server(options=server_options())
        audio_encoder_pb2_grpc.add_AudioEncoderServiceServicer_to_server(Servicer(stage, scope), server)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        async with grpc.aio.insecure_channel(address, options=channel_options()) as channel:
            yield Served(audio_encoder_pb2_grpc.AudioEncoderServiceStub(channel), address, pool, metrics, worker)
        await server.stop(None)

    return served


@asynccontextmanager
async def session(served: Served, session_id: str = "s1") -> AsyncIterator[Any]:
    """An open stream whose ready has been read; cancelled at the end."""
    call = served.stub.Encode()
    try:
        await call.write(config_request(session_id))
        answer = await read(call)
        assert answer.ready.model.name == "tone"
        yield call
    finally:
        call.cancel()


async def read(call: Any) -> audio_encoder_pb2.EncodeResponse:
    async with asyncio.timeout(PATIENCE_SECONDS):
        answer = await call.read()
    assert answer is not grpc.aio.EOF, await status_of(call)
    assert isinstance(answer, audio_encoder_pb2.EncodeResponse)
    return answer


async def status_of(call: Any) -> VisavisError | None:
    """The domain error that ended the call; None for OK."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await call.read() is not grpc.aio.EOF:
                pass
            code = await call.code()
    except grpc.aio.AioRpcError as error:
        return error_from_rpc(error)
    if code is grpc.StatusCode.OK:
        return None
    details = await call.trailing_metadata()
    return error_from_rpc(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), details, await call.details(), None))


async def failure_of(served: Served, *requests: audio_encoder_pb2.EncodeRequest) -> VisavisError:
    """Sends requests, then the half-close; returns the error that ends the call."""
    call = served.stub.Encode(iter(requests))
    error = await status_of(call)
    assert error is not None
    return error


async def test_config_ready_then_one_answer_per_item_in_order(serve: Serve) -> None:
    async with serve() as served, session(served) as call:
        for index in range(1, 8):
            await call.write(chunk_request(index))
        indices = [(await read(call)).chunk.speech.header.chunk_index for _ in range(7)]
        assert indices == list(range(1, 8))
        await call.done_writing()
        assert await status_of(call) is None
        await served.wait_until_free()
        assert served.metric("visavis_chunk_duration_seconds_count") == 7
        assert served.metric("visavis_chunk_computed_seconds_sum") == pytest.approx(0.021)
        assert served.metric("visavis_chunks_in_flight") == 0
        assert served.metric("visavis_sessions_total", code="OK") == 1


async def test_half_close_lets_what_is_pending_finish(serve: Serve) -> None:
    async with serve(ToneSettings(step_seconds=0.1)) as served, session(served) as call:
        for index in range(1, 4):
            await call.write(chunk_request(index))
        await call.done_writing()
        assert [(await read(call)).chunk.speech.header.chunk_index for _ in range(3)] == [1, 2, 3]
        assert await status_of(call) is None


async def test_a_session_can_be_opened_again_after_its_end(serve: Serve) -> None:
    async with serve(slots=1) as served:
        for _ in range(3):
            async with session(served) as call:
                await call.done_writing()
                assert await status_of(call) is None


async def test_a_rewind_drops_what_is_in_the_stage_and_gives_its_places_back(serve: Serve, gate: Gate) -> None:
    async with serve(ToneSettings(gate=gate, gated="step"), max_in_flight=2) as served, session(served) as call:
        for index in (1, 2):
            await call.write(chunk_request(index))
        await served.wait_for_items(2)
        await call.write(rewind_request(0, epoch=2))
        await call.write(chunk_request(1, epoch=2))
        await served.wait_for_items(1)  # the places are free at once: the engine is still at the old one's step
        for index in (2, 3):
            await call.write(chunk_request(index, epoch=2))
        gate.open()
        headers = [(await read(call)).chunk.speech.header for _ in range(3)]
        assert [(header.epoch, header.chunk_index) for header in headers] == [(2, 1), (2, 2), (2, 3)]
        await call.done_writing()
        assert await status_of(call) is None
        assert served.metric("visavis_chunks_in_flight") == 0
        assert served.metric("visavis_chunk_duration_seconds_count") == 3


async def test_rewinds_at_any_moment_leave_one_answer_for_each_chunk_that_stands(serve: Serve) -> None:
    async with serve(ToneSettings(step_seconds=0.01)) as served, session(served) as call:
        epoch, stands = 1, list[tuple[int, int]]()
        answers = list[tuple[int, int]]()

        async def read_on() -> None:
            while (answer := await call.read()) is not grpc.aio.EOF:
                header = answer.chunk.speech.header
                answers.append((header.epoch, header.chunk_index))

        reading = asyncio.create_task(read_on())
        for turn in range(40):
            for _ in range(1 + turn % 3):
                stands.append((epoch, len(stands) + 1))
                await call.write(chunk_request(len(stands), epoch=epoch))
            await asyncio.sleep(0.003 * (turn % 7))
            epoch += 1
            del stands[len(stands) - turn % 2 :]
            await call.write(rewind_request(len(stands), epoch=epoch))
        stands.append((epoch, len(stands) + 1))
        await call.write(chunk_request(len(stands), epoch=epoch))
        await call.done_writing()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await reading
        assert await call.code() is grpc.StatusCode.OK
        assert answers == sorted(answers), "an answer of an older epoch came after one of a newer"
        assert len(set(answers)) == len(answers)
        assert answers[-1] == stands[-1]
        assert served.metric("visavis_chunks_in_flight") == 0


async def test_a_resumed_session_goes_on_behind_its_border(serve: Serve) -> None:
    async with serve() as served:
        call = served.stub.Encode()
        await call.write(resume_request(41, epoch=3))
        assert (await read(call)).WhichOneof("response") == "ready"
        await call.write(chunk_request(42, epoch=3))
        assert (await read(call)).chunk.speech.header.chunk_index == 42
        call.cancel()


@pytest.mark.parametrize("reads", [True, False])
async def test_a_resumed_session_takes_the_place_of_the_stream_that_was_left_behind(serve: Serve, reads: bool) -> None:
    async with serve(slots=1) as served, session(served, "s1") as left_behind:
        if not reads:  # a frozen gateway: the stage's answers fill the connection
            sending = asyncio.create_task(send_forever(left_behind))
            await asyncio.sleep(1.0)
        call = served.stub.Encode()
        await call.write(resume_request(7))
        assert (await read(call)).WhichOneof("response") == "ready"
        await call.write(chunk_request(8))
        assert (await read(call)).chunk.speech.header.chunk_index == 8
        assert isinstance(await failure_of(served, config_request("s2")), CapacityExhausted)
        if reads:
            assert isinstance(await status_of(left_behind), SessionMoved)
        else:  # a write that is under way makes grpc.aio tell INTERNAL, whatever the status is
            assert await status_of(left_behind) is not None
            # The latter where a slow machine was between two writes.
            with pytest.raises((grpc.aio.AioRpcError, asyncio.InvalidStateError)):
                await sending
        await call.done_writing()
        assert await status_of(call) is None
        await served.wait_until_free()


async def send_forever(call: Any) -> None:
    for index in itertools.count(1):
        await call.write(chunk_request(index))


async def test_full_is_answered_at_once_with_a_retry_delay(serve: Serve) -> None:
    async with serve(slots=1) as served, session(served):
        refusal = await failure_of(served, config_request("s2"))
        assert isinstance(refusal, CapacityExhausted)
        assert refusal.retry_after_seconds == 1.5
        assert served.slots.used_slots == 1  # nobody waited for it


SHORT_SAMPLES = audio_encoder_pb2.SpeechChunk(header=chunk().header, samples=b"123")
REPLAYS_TOO_MUCH = rewind_request(1, epoch=2, replayed=3)
BROKEN_RULES = [
    ("request", [chunk_request()]),
    ("request", [audio_encoder_pb2.EncodeRequest()]),
    ("config.session_id", [config_request("")]),
    ("config.session_id", [config_request("a{b}")]),
    ("config", [config_request(), config_request()]),
    ("request", [config_request(), audio_encoder_pb2.EncodeRequest()]),
    ("chunk.header.chunk_index", [config_request(), chunk_request(2)]),
    ("chunk.header.chunk_index", [config_request(), chunk_request(1), chunk_request(1)]),
    ("chunk.header.chunk_index", [config_request(), chunk_request(1), chunk_request(3)]),
    ("chunk.header.epoch", [config_request(), chunk_request(1, epoch=2), chunk_request(2, epoch=1)]),
    ("chunk.samples", [config_request(), audio_encoder_pb2.EncodeRequest(chunk=SHORT_SAMPLES)]),
    ("chunk.samples", [config_request(), chunk_request(order=REFUSE)]),
    (
        "rewind.border.epoch",
        [config_request(), audio_encoder_pb2.EncodeRequest(rewind=audio_encoder_pb2.EncodeRewind())],
    ),
    ("rewind.border.epoch", [config_request(), rewind_request(0, epoch=1)]),
    ("rewind.border.epoch", [config_request(), chunk_request(1, epoch=4), rewind_request(1, epoch=4)]),
    ("rewind.border.chunk_index", [config_request(), rewind_request(1, epoch=2)]),
    ("rewind.border.chunk_index", [config_request(), chunk_request(1), rewind_request(2**64 - 1, epoch=2)]),
    ("rewind.replay", [config_request(), chunk_request(1), REPLAYS_TOO_MUCH, chunk_request(2, epoch=2)]),
    ("chunk.header.chunk_index", [config_request(), chunk_request(1), rewind_request(0, epoch=2), chunk_request(2)]),
    ("chunk.header.epoch", [config_request(), chunk_request(1), rewind_request(0, epoch=2), chunk_request(1)]),
    ("config.resume.border.epoch", [resume_request(3, epoch=0)]),
    ("config.resume.border.chunk_index", [resume_request(2**64 - 1)]),
    ("chunk.header.chunk_index", [resume_request(3), chunk_request(3)]),
    ("chunk.header.epoch", [resume_request(3, epoch=2), chunk_request(4)]),
]


async def test_a_broken_rule_names_its_field_and_frees_the_slot(serve: Serve) -> None:
    async with serve() as served:
        for field, requests in BROKEN_RULES:
            refusal = await failure_of(served, *requests)
            assert isinstance(refusal, InvalidInput), requests
            assert refusal.field == field, requests
            await served.wait_until_free()


async def test_bytes_that_are_no_message_are_invalid_input(serve: Serve) -> None:
    async with serve() as served, grpc.aio.insecure_channel(served.address) as channel:
        encode: Any = channel.stream_stream("/visavis.v1.AudioEncoderService/Encode")
        call = encode(iter([b"\xff\xff\xff no message"]))
        assert isinstance(await status_of(call), InvalidInput)


async def test_no_config_in_time_is_a_missed_deadline(serve: Serve) -> None:
    async with serve(config_timeout_seconds=0.3) as served:
        call = served.stub.Encode()
        assert isinstance(await status_of(call), DeadlineMissed)


async def test_a_stream_without_a_message_ends_well(serve: Serve) -> None:
    async with serve() as served:
        assert await status_of(served.stub.Encode(iter([]))) is None


async def test_a_session_id_in_use_is_refused(serve: Serve) -> None:
    async with serve() as served, session(served, "s1") as call:
        assert isinstance(await failure_of(served, config_request("s1")), SessionExists)
        await call.write(chunk_request())
        assert (await read(call)).chunk.speech.header.chunk_index == 1


async def test_an_exception_of_the_engine_shows_no_text(serve: Serve) -> None:
    async with serve() as served:
        for requests in ([config_request(CRASH_OPEN)], [config_request(), chunk_request(order=CRASH_SUBMIT)]):
            failure = await failure_of(served, *requests)
            assert isinstance(failure, InternalError)
            assert SECRET not in failure.message
            await served.wait_until_free()


async def test_a_cancelled_call_frees_the_slot_at_once(serve: Serve, gate: Gate) -> None:
    async with serve(ToneSettings(gate=gate, gated="step")) as served:
        async with session(served) as call:
            for index in range(1, 4):
                await call.write(chunk_request(index))
        await served.wait_until_free()  # while the engine is still at its first chunk
        assert served.metric("visavis_sessions_total", code="CANCELLED") == 1
        gate.open()
        async with session(served) as call:
            await call.write(chunk_request())
            assert (await read(call)).chunk.speech.header.chunk_index == 1


CLIENT = """
import asyncio, sys, grpc
from tests.runtime.messages import chunk_request, config_request
from visavis.v1 import audio_encoder_pb2_grpc

async def main():
    async with grpc.aio.insecure_channel(sys.argv[1]) as channel:
        call = audio_encoder_pb2_grpc.AudioEncoderServiceStub(channel).Encode()
        await call.write(config_request())
        await call.read()
        await call.write(chunk_request())
        print("streaming", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_killed_client_frees_the_slot_at_once(serve: Serve, gate: Gate) -> None:
    async with serve(ToneSettings(gate=gate, gated="step")) as served:
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CLIENT, served.address, cwd=REPOSITORY, stdout=subprocess.PIPE
        )
        assert client.stdout is not None
        async with asyncio.timeout(2 * PATIENCE_SECONDS):
            assert await client.stdout.readline() == b"streaming\n"
        assert served.slots.used_slots == 1
        client.kill()
        await served.wait_until_free()  # while the engine is still at its chunk
        await client.wait()
        gate.open()


async def test_a_slow_reader_stops_the_reading_of_its_own_stream_only(serve: Serve) -> None:
    async with serve() as served, session(served, "slow") as slow, session(served, "quick") as quick:
        sent, round_trips = 0, 0

        async def send_forever() -> None:
            nonlocal sent
            while True:
                await slow.write(chunk_request(sent + 1))
                sent += 1

        def slow_stands_at() -> tuple[int, float]:
            return sent, served.metric("visavis_chunk_duration_seconds_count") - round_trips

        async def go_all_the_way(times: int) -> None:
            nonlocal round_trips
            for _ in range(times):
                await quick.write(chunk_request(round_trips + 1))
                assert (await read(quick)).chunk.speech.header.chunk_index == round_trips + 1
                round_trips += 1

        sending = asyncio.create_task(send_forever())
        before = (-1, -1.0)
        async with asyncio.timeout(60):
            # Until nothing of it moves while another stream passes everything often: a busy machine slows down both.
            while before != slow_stands_at():
                before = slow_stands_at()
                await go_all_the_way(20)
        assert served.metric("visavis_chunks_in_flight") <= 3
        assert 3 < sent < 60, f"{sent} chunks of 61 KB were taken without a reader"
        for index in range(1, sent + 1):  # and nothing is lost
            assert (await read(slow)).chunk.speech.header.chunk_index == index
        sending.cancel()


async def test_at_most_so_many_items_are_in_the_engine(serve: Serve, gate: Gate) -> None:
    async with serve(ToneSettings(gate=gate, gated="step"), max_in_flight=2) as served, session(served) as call:
        for index in range(1, 7):
            await call.write(chunk_request(index))
        await served.wait_for_items(2)
        await asyncio.sleep(0.1)
        assert served.metric("visavis_chunks_in_flight") == 2
        gate.open()
        for index in range(1, 7):
            assert (await read(call)).chunk.speech.header.chunk_index == index


@pytest.mark.parametrize("how", ["kill -9", "crash"])
async def test_a_lost_worker_is_unavailable(serve: Serve, how: str) -> None:
    async with serve() as served, session(served, "s1") as first, session(served, "s2") as second:
        if how == "crash":
            await first.write(chunk_request(order=KILL))
        else:
            assert served.worker.process_id is not None
            os.kill(served.worker.process_id, signal.SIGKILL)
        for call in (first, second):
            assert isinstance(await status_of(call), WorkerLost)
        await served.wait_until_free()
        assert isinstance(await failure_of(served, config_request("s3")), WorkerLost)


async def test_a_hung_worker_takes_no_new_sessions(serve: Serve) -> None:
    async with serve(hang_seconds=2.5) as served, session(served) as call:
        await call.write(chunk_request(order=HANG))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not served.worker.hung:  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(0.02)
        assert type(await failure_of(served, config_request("s2"))) is StageUnavailable
        assert served.slots.used_slots == 1


async def test_a_draining_stage_refuses_new_sessions_and_serves_the_old(serve: Serve) -> None:
    async with serve() as served, session(served) as call:
        served.slots.drain(600.0)
        assert isinstance(await failure_of(served, config_request("s2")), Draining)
        assert (await read(call)).draining.time_left.ToMilliseconds() == pytest.approx(600_000, abs=60_000)
        for index in (1, 2):  # and the notice comes once
            await call.write(chunk_request(index))
            assert (await read(call)).chunk.speech.header.chunk_index == index
        served.slots.evict_all(Draining("time is up"))
        assert isinstance(await status_of(call), Draining)
        await served.wait_until_free()


async def test_the_scope_surrounds_the_session_and_the_slot_is_free_before_it_is_left(serve: Serve) -> None:
    events: list[str] = []
    pools: list[SlotPool] = []

    @asynccontextmanager
    async def scope(opened: StageSession) -> AsyncIterator[CompleteReady]:
        events.append(f"enter {opened.session_id}")
        try:
            yield lambda ready: events.append(f"ready {ready.model.name}")
        finally:
            await asyncio.sleep(0)
            events.append(f"leave with {pools[0].used_slots} taken")

    async with serve(scope=scope) as served:
        pools.append(served.slots)
        async with session(served):
            pass
        await served.wait_until_free()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(events) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    assert events == ["enter s1", "ready tone", "leave with 0 taken"]


async def test_a_leased_session_is_refused_elsewhere_and_free_at_its_end(
    serve: Serve, redis: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_keeper, "RENEWALS_PER_EXPIRY", 600)
    store = LeaseStore(redis, lease_seconds=60.0, timeout_seconds=PATIENCE_SECONDS)

    @asynccontextmanager
    async def scope(opened: StageSession) -> AsyncIterator[CompleteReady]:
        async with leased_sessions(store, "g1")(opened) as complete:
            ready = generator_pb2.GenerateReady()
            complete(ready)
            assert ready.generator_id == "g1"
            assert ready.fencing_token > 0
            yield lambda ready: None

    async with serve(scope=scope) as served:
        async with session(served):
            with pytest.raises(LeaseHeld):
                await store.claim("s1", "g2")
        await served.wait_until_free()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await store.current("s1") is not None:  # noqa: ASYNC110  # Redis tells nobody
                await asyncio.sleep(0.01)
        other = await store.claim("s1", "g2")
        assert isinstance(await failure_of(served, config_request("s1")), LeaseHeld)
        await store.release(other)
        async with session(served) as call:
            lease = await store.current("s1")
            assert lease is not None
            await store.claim("s1", "g2", take_over_token=lease.token)
            assert isinstance(await status_of(call), LeaseLost)


async def test_a_resumption_that_is_refused_leaves_the_session_its_slot(serve: Serve, redis: RedisClient) -> None:
    store = LeaseStore(redis, lease_seconds=60.0, timeout_seconds=PATIENCE_SECONDS)

    @asynccontextmanager
    async def scope(opened: StageSession) -> AsyncIterator[CompleteReady]:
        async with leased_sessions(store, "g1")(opened):
            yield lambda ready: None

    async with serve(slots=1, scope=scope) as served, session(served) as call:
        assert isinstance(await failure_of(served, resume_request(7)), LeaseHeld)
        assert isinstance(await failure_of(served, config_request("s2")), CapacityExhausted)
        await call.write(chunk_request())
        assert (await read(call)).chunk.speech.header.chunk_index == 1


async def test_an_unreachable_redis_refuses_a_leased_session(serve: Serve) -> None:
    client = connect_redis(RedisSettings("redis://127.0.0.1:1/0", timeout_seconds=0.3))
    store = LeaseStore(client, lease_seconds=1.0, timeout_seconds=0.3)
    async with serve(scope=leased_sessions(store, "g1")) as served:
        assert isinstance(await failure_of(served, config_request("s1")), StateStoreUnavailable)
        await served.wait_until_free()
    await client.aclose()
