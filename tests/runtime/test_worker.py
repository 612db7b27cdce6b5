"""The worker process: sessions, calls, what kills it and whom it takes along."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from google.protobuf.message import Message

from tests.patience import PATIENCE_SECONDS
from tests.runtime.conftest import ENGINE, StartWorker, worker_settings
from tests.runtime.messages import SAMPLES, chunk, config, rewind
from tests.runtime.processes import is_alive, wait_until_dead
from tests.runtime.tone_engine import (
    CRASH_OPEN,
    CRASH_STEP,
    CRASH_SUBMIT,
    HANG,
    KILL,
    REFUSE,
    SECRET,
    Gate,
    ToneSettings,
)
from visavis.runtime.errors import (
    CapacityExhausted,
    InternalError,
    InvalidInput,
    LeaseLost,
    SessionExists,
    StageUnavailable,
    WorkerLost,
)
from visavis.runtime.worker import Worker, WorkerSession
from visavis.v1 import audio_encoder_pb2, decoder_pb2

REPOSITORY = Path(__file__).parents[2]


async def wait_until_hung(worker: Worker, *, hung: bool) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while worker.hung != hung:  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.02)


async def open_when_alive(worker: Worker) -> tuple[Message, WorkerSession]:
    """Opens "s1" when a sign of life has just come: where soon counts as hung, the machine may be too busy for one."""
    await wait_until_hung(worker, hung=False)
    return await worker.open("s1", config())


async def outputs_of(session: WorkerSession, count: int) -> list[audio_encoder_pb2.EncodedChunk]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return [cast(audio_encoder_pb2.EncodedChunk, await anext(session)) for _ in range(count)]


async def test_outputs_come_in_order_and_complete(start_worker: StartWorker) -> None:
    worker = await start_worker()
    ready, session = await worker.open("s1", config())
    assert cast(audio_encoder_pb2.EncodeReady, ready).model.name == "tone"
    for index in range(1, 6):
        session.submit(chunk(index))
    outputs = await outputs_of(session, 5)
    assert [output.speech.header.chunk_index for output in outputs] == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(np.frombuffer(outputs[0].speech.latents.data, "<f4"), SAMPLES * 2)


async def test_an_item_comes_back_in_milliseconds(start_worker: StartWorker) -> None:
    worker = await start_worker()
    _, session = await worker.open("s1", config())
    seconds = []
    for index in range(1, 31):
        started = time.perf_counter()
        session.submit(chunk(index))
        await outputs_of(session, 1)
        seconds.append(time.perf_counter() - started)
    # Whoever asks again right after an answer meets a poll at the beginning of its pause, each time.
    assert min(seconds) < 0.02, f"{min(seconds):.4f} s: something polls"


async def test_sessions_do_not_mix(start_worker: StartWorker) -> None:
    worker = await start_worker()
    sessions = [(await worker.open(f"s{number}", config()))[1] for number in range(3)]
    for number, session in enumerate(sessions):
        session.submit(chunk(number + 1))
    for number, session in enumerate(sessions):
        assert (await outputs_of(session, 1))[0].speech.header.chunk_index == number + 1


async def test_an_open_session_cannot_be_opened_again_until_it_is_closed(start_worker: StartWorker) -> None:
    worker = await start_worker(ToneSettings(slots=1))
    _, session = await worker.open("s1", config())
    with pytest.raises(SessionExists):
        await worker.open("s1", config())
    with pytest.raises(CapacityExhausted):
        await worker.open("s2", config())
    session.close()
    session.close()
    _, again = await worker.open("s1", config())
    again.submit(chunk())
    assert len(await outputs_of(again, 1)) == 1


async def test_what_was_under_way_for_a_closed_session_does_not_reach_its_successor(start_worker: StartWorker) -> None:
    worker = await start_worker(ToneSettings(step_seconds=0.05))
    _, session = await worker.open("s1", config())
    for index in range(1, 4):
        session.submit(chunk(index))
    await asyncio.sleep(0.06)
    session.close()
    _, successor = await worker.open("s1", config())
    successor.submit(chunk(7))
    assert (await outputs_of(successor, 1))[0].speech.header.chunk_index == 7


async def test_finish_ends_the_iteration_after_what_is_there(start_worker: StartWorker) -> None:
    worker = await start_worker()
    _, session = await worker.open("s1", config())
    _, later = await worker.open("s2", config())
    session.submit(chunk())
    later.submit(chunk())
    await outputs_of(later, 1)  # answers come in the order of their questions, so the first one's is there too
    session.finish()
    assert len([output async for output in session]) == 1


async def test_an_error_of_one_session_leaves_the_others_alone(
    start_worker: StartWorker, capfd: pytest.CaptureFixture[str]
) -> None:
    worker = await start_worker()
    _, refused = await worker.open("refused", config())
    _, broken = await worker.open("broken", config())
    _, healthy = await worker.open("healthy", config())
    refused.submit(chunk(order=REFUSE))
    broken.submit(chunk(order=CRASH_SUBMIT))
    healthy.submit(chunk())
    with pytest.raises(InvalidInput) as refusal:
        await anext(refused)
    assert refusal.value.field == "chunk.samples"
    with pytest.raises(InternalError) as failure:
        await anext(broken)
    assert len(await outputs_of(healthy, 1)) == 1
    assert SECRET not in failure.value.message
    log = capfd.readouterr().err
    assert SECRET in log
    assert failure.value.error_id in log


async def test_a_failed_open_tells_an_id_and_leaves_the_worker_working(start_worker: StartWorker) -> None:
    worker = await start_worker()
    with pytest.raises(InternalError) as failure:
        await worker.open(CRASH_OPEN, config())
    assert SECRET not in failure.value.message
    await worker.open("s1", config())


async def test_an_open_that_is_given_up_leaves_no_session_behind(start_worker: StartWorker, gate: Gate) -> None:
    engine = ToneSettings(slots=1, gate=gate, gated="open")
    worker = await start_worker(engine, worker_settings(open_timeout_seconds=0.05))
    with pytest.raises(StageUnavailable):
        await worker.open("s1", config())
    gate.open()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:  # a slow machine may be too slow again; CapacityExhausted would be a slot that was not given back
            with contextlib.suppress(StageUnavailable):
                await worker.open("s2", config())
                break


async def test_calls_are_answered_and_bounded(start_worker: StartWorker) -> None:
    worker = await start_worker()
    request = decoder_pb2.EncodePortraitRequest(portrait=b"abc")
    assert cast(decoder_pb2.EncodePortraitResponse, await worker.call(request)).thumbnail == b"cba"
    with pytest.raises(InternalError):
        await worker.call(decoder_pb2.EncodePortraitRequest(portrait=b"crash"))
    slow = decoder_pb2.EncodePortraitRequest(portrait=b"slow")
    answers = await asyncio.gather(*(worker.call(slow) for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers].count(CapacityExhausted) == 1
    assert await worker.call(request)


async def test_calls_yield_to_sessions(start_worker: StartWorker) -> None:
    worker = await start_worker(ToneSettings(step_seconds=0.02, call_patience_seconds=3600))
    _, session = await worker.open("s1", config())
    order = list[str]()

    async def chunks() -> None:
        for _ in range(5):
            await anext(session)
            order.append("chunk")

    for _ in range(5):
        session.submit(chunk())
    working = asyncio.create_task(chunks())
    await worker.call(decoder_pb2.EncodePortraitRequest(portrait=b"abc"))
    order.append("call")
    await working
    assert order == ["chunk"] * 5 + ["call"]


async def test_a_stage_that_is_always_busy_answers_calls_all_the_same(start_worker: StartWorker) -> None:
    worker = await start_worker(ToneSettings(step_seconds=0.02, call_patience_seconds=0.2))
    _, session = await worker.open("s1", config())
    for _ in range(5):
        session.submit(chunk())
    calling = asyncio.create_task(worker.call(decoder_pb2.EncodePortraitRequest(portrait=b"abc")))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not calling.done():
            await anext(session)
            session.submit(chunk())
    assert await calling


async def test_a_call_that_takes_too_long_is_unavailable(start_worker: StartWorker, gate: Gate) -> None:
    engine = ToneSettings(gate=gate, gated="call")
    worker = await start_worker(engine, worker_settings(call_timeout_seconds=0.1))
    with pytest.raises(StageUnavailable):
        await worker.call(decoder_pb2.EncodePortraitRequest(portrait=b"abc"))
    gate.open()


async def test_the_worker_is_pinned_and_its_openmp_threads_sleep(start_worker: StartWorker) -> None:
    processor = min(os.sched_getaffinity(0))
    worker = await start_worker(None, worker_settings(threads=3, processors=(processor,)))
    request = decoder_pb2.EncodePortraitRequest(portrait=b"environment")
    answer = cast(decoder_pb2.EncodePortraitResponse, await worker.call(request))
    assert answer.thumbnail.decode() == f"PASSIVE 0 3 {processor}"


@pytest.mark.parametrize("order", [KILL, CRASH_STEP])
async def test_a_lost_worker_fails_every_session_and_call(start_worker: StartWorker, order: bytes, gate: Gate) -> None:
    worker = await start_worker(ToneSettings(gate=gate, gated="step", call_patience_seconds=3600))
    _, first = await worker.open("s1", config())
    _, second = await worker.open("s2", config())
    first.submit(chunk(order=order))
    call = asyncio.create_task(worker.call(decoder_pb2.EncodePortraitRequest(portrait=b"abc")))
    await asyncio.sleep(0)  # the call waits for the end of the step
    gate.open()
    for session in (first, second):
        with pytest.raises(WorkerLost):
            await outputs_of(session, 1)
    with pytest.raises(WorkerLost):
        await call
    assert worker.lost.is_set()
    with pytest.raises(WorkerLost):
        await worker.open("s3", config())
    with pytest.raises(WorkerLost):
        second.submit(chunk())
    second.close()


async def test_kill_minus_nine_is_noticed_at_once(start_worker: StartWorker) -> None:
    worker = await start_worker()
    _, session = await worker.open("s1", config())
    assert worker.process_id is not None
    os.kill(worker.process_id, signal.SIGKILL)
    with pytest.raises(WorkerLost):  # long before anybody misses its signs of life
        await outputs_of(session, 1)


async def test_an_engine_that_cannot_start_is_a_lost_worker(capfd: pytest.CaptureFixture[str]) -> None:
    worker = Worker(ENGINE, ToneSettings(fails_to_start=True), worker_settings(), stage="audio_encoder")
    with pytest.raises(WorkerLost) as failure:
        await worker.start()
    assert SECRET not in failure.value.message
    assert SECRET in capfd.readouterr().err


async def test_an_engine_that_starts_too_slowly_is_ended() -> None:
    settings = worker_settings(start_timeout_seconds=0.5)
    worker = Worker(ENGINE, ToneSettings(warm_up_seconds=60), settings, stage="audio_encoder")
    with pytest.raises(StageUnavailable):
        await worker.start()
    assert worker.process_id is not None
    assert not is_alive(worker.process_id)


async def test_a_hung_engine_is_reported_refuses_sessions_and_is_killed(start_worker: StartWorker) -> None:
    worker = await start_worker(None, worker_settings(hang_seconds=0.3, kill_seconds=3.0))
    await asyncio.sleep(0.4)
    await wait_until_hung(worker, hung=False)  # an engine without work does not hang
    _, session = await open_when_alive(worker)
    session.submit(chunk(order=HANG))
    await wait_until_hung(worker, hung=True)
    with pytest.raises(StageUnavailable):
        await worker.open("s2", config())
    async with asyncio.timeout(PATIENCE_SECONDS):
        await worker.lost.wait()
    with pytest.raises(WorkerLost):
        await outputs_of(session, 1)


async def test_an_engine_that_was_long_to_warm_up_does_not_hang(start_worker: StartWorker) -> None:
    """Its first heartbeat says whether it takes sessions; the next may be long in coming."""
    worker = await start_worker(ToneSettings(warm_up_seconds=2.2), worker_settings(hang_seconds=2.0))
    assert not worker.hung


async def test_a_stopped_process_counts_as_hung(start_worker: StartWorker) -> None:
    worker = await start_worker(None, worker_settings(hang_seconds=0.3))
    assert worker.process_id is not None
    os.kill(worker.process_id, signal.SIGSTOP)
    await wait_until_hung(worker, hung=True)
    os.kill(worker.process_id, signal.SIGCONT)
    await open_when_alive(worker)


async def test_a_worker_that_gives_no_sign_of_life_is_killed(
    start_worker: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await start_worker(None, worker_settings(silence_seconds=3.0))
    _, session = await worker.open("s1", config())
    assert worker.process_id is not None
    os.kill(worker.process_id, signal.SIGSTOP)
    with pytest.raises(WorkerLost):
        await outputs_of(session, 1)
    assert not is_alive(worker.process_id)
    assert "no sign of life" in caplog.text


async def test_long_loading_is_no_silence(start_worker: StartWorker) -> None:
    await start_worker(ToneSettings(warm_up_seconds=1.0), worker_settings(silence_seconds=0.3))


async def test_a_long_step_is_no_silence(start_worker: StartWorker, gate: Gate) -> None:
    engine = ToneSettings(gate=gate, gated="step")
    worker = await start_worker(engine, worker_settings(hang_seconds=0.4))  # with ten signs of life a second
    _, session = await open_when_alive(worker)
    session.submit(chunk())
    async with asyncio.timeout(PATIENCE_SECONDS):
        # Signs of life come in the middle of the step, and say how long it has been.
        while worker.stalled_seconds < 1.0 or worker.silent_seconds > 0:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    gate.open()
    await outputs_of(session, 1)
    assert not worker.lost.is_set()


async def test_what_was_answered_before_a_rewind_does_not_come_after_it(start_worker: StartWorker) -> None:
    worker = await start_worker(ToneSettings(step_seconds=0.05))
    _, session = await worker.open("s1", config())
    for index in (1, 2, 3):
        session.submit(chunk(index))
    await asyncio.sleep(0.08)  # the first is there, the second on its way
    session.rewind(rewind(1, epoch=2))
    session.submit(chunk(2, epoch=2))
    (output,) = await outputs_of(session, 1)
    assert (output.speech.header.epoch, output.speech.header.chunk_index) == (2, 2)
    session.rewind(rewind(0, epoch=3))
    session.rewind(rewind(0, epoch=4))
    session.submit(chunk(1, epoch=4))
    assert (await outputs_of(session, 1))[0].speech.header.epoch == 4


async def test_a_rewind_that_is_refused_ends_its_session_only(start_worker: StartWorker) -> None:
    worker = await start_worker()
    _, refused = await worker.open("refused", config())
    _, healthy = await worker.open("healthy", config())
    refused.rewind(rewind(3, epoch=2, replayed=3))
    healthy.submit(chunk())
    with pytest.raises(InvalidInput) as refusal:
        await outputs_of(refused, 1)
    assert refusal.value.field == "rewind.replay"
    await outputs_of(healthy, 1)


async def test_an_abandoned_session_gives_nothing_more_and_its_id_is_free(start_worker: StartWorker) -> None:
    worker = await start_worker()
    _, session = await worker.open("s1", config())
    session.submit(chunk())
    await asyncio.sleep(0.1)
    session.abandon(LeaseLost("gone"))
    with pytest.raises(LeaseLost):
        await outputs_of(session, 1)
    await worker.open("s1", config())


async def test_busy_fraction_follows_the_load(start_worker: StartWorker) -> None:
    worker = await start_worker(ToneSettings(step_seconds=0.1), worker_settings(hang_seconds=2.0))
    _, session = await worker.open("s1", config())
    for index in range(1, 301):
        session.submit(chunk(index))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while worker.busy_fraction < 0.8:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    session.close()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while worker.busy_fraction > 0.2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_signals_for_the_whole_group_do_not_end_the_worker(start_worker: StartWorker) -> None:
    worker = await start_worker()
    assert worker.process_id is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker.process_id, number)
    await asyncio.sleep(0.1)
    await worker.open("s1", config())


async def test_stop_ends_the_process(start_worker: StartWorker) -> None:
    worker = await start_worker()
    assert worker.process_id is not None
    await worker.stop()
    await worker.stop()
    assert not is_alive(worker.process_id)


ORPHAN = """
import asyncio, sys
from tests.runtime.conftest import ENGINE, worker_settings
from tests.runtime.messages import chunk, config
from tests.runtime.tone_engine import HANG, ToneSettings
from visavis.runtime.worker import Worker

async def main():
    worker = Worker(ENGINE, ToneSettings(), worker_settings(), stage="audio_encoder")
    await worker.start()
    _, session = await worker.open("s1", config())
    if sys.argv[1] == "busy":
        session.submit(chunk(order=HANG))
    print(worker.process_id, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("load", ["idle", "busy"])
def test_the_worker_dies_with_a_killed_parent(load: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN, load], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent, parent.stdout:
        worker_process_id = int(parent.stdout.readline())
        assert is_alive(worker_process_id)
        parent.kill()
        wait_until_dead(worker_process_id)
