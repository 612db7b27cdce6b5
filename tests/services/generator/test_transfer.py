"""The exact state of a session leaves one engine and arrives in another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from services.generator import state_transfer
from services.generator.engine import GeneratorEngine
from services.generator.state_transfer import ArrivingState, leaving_state
from services.generator.transfer_ids import arriving_id, leaving_id
from tests.services.engine_driver import outputs_of, run_dry
from tests.services.generator.messages import config, speech
from tests.services.tiny_settings import generator_settings
from visavis.models.id_context import Context
from visavis.runtime.engine import SessionOutput
from visavis.runtime.errors import InvalidInput, ModelMismatch, NotFound, StageUnavailable, VisavisError
from visavis.v1 import chunk_pb2, generator_pb2

SEED = 5


def make_engine() -> GeneratorEngine:
    torch.set_num_threads(1)
    settings = generator_settings()
    engine = GeneratorEngine(settings)
    engine.warm_up()
    return engine


@pytest.fixture(scope="module")
def engines() -> tuple[GeneratorEngine, GeneratorEngine]:
    return make_engine(), make_engine()


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_transfer, "PART_BYTES", 1000)


@pytest.fixture
def here(engines: tuple[GeneratorEngine, GeneratorEngine]) -> Iterator[GeneratorEngine]:
    yield engines[0]
    close(engines[0])


@pytest.fixture
def there(engines: tuple[GeneratorEngine, GeneratorEngine]) -> Iterator[GeneratorEngine]:
    yield engines[1]
    close(engines[1])


def close(engine: GeneratorEngine) -> None:
    for session_id in (leaving_id("a"), arriving_id("a"), "a", "b"):
        engine.close(session_id)
    run_dry(engine)
    assert not engine._sessions
    assert not engine._arriving
    assert not engine._leaving


def submit(engine: GeneratorEngine, *indices: int, epoch: int = 1) -> None:
    for index in indices:
        engine.submit("a", speech(index, SEED, epoch=epoch), time.monotonic())


def begin(engine: GeneratorEngine, chunks: int) -> list[SessionOutput]:
    engine.open("a", config("a", SEED))
    submit(engine, *range(1, chunks + 1))
    return run_dry(engine)


def ask_for(engine: GeneratorEngine) -> None:
    engine.open(leaving_id("a"), generator_pb2.TransferSessionRequest(session_id="a"))


def leave(engine: GeneratorEngine) -> list[generator_pb2.TransferSessionResponse]:
    """Asks for the state of a session at rest."""
    ask_for(engine)
    return outputs_of(run_dry(engine), leaving_id("a"), generator_pb2.TransferSessionResponse)


def arrive(engine: GeneratorEngine, messages: list[generator_pb2.TransferSessionResponse]) -> None:
    for message in messages:
        if message.HasField("state"):
            engine.open(arriving_id("a"), message.state)
        else:
            engine.submit(arriving_id("a"), message.part, 0.0)


def go_on(engine: GeneratorEngine) -> generator_pb2.GenerateReady:
    resumed = config("a", SEED)
    resumed.resume.peer.address = "peer:1"
    ready = engine.open("a", resumed)
    engine.close(arriving_id("a"))
    assert isinstance(ready, generator_pb2.GenerateReady)
    return ready


def arrive_and_go_on(engine: GeneratorEngine, messages: list[generator_pb2.TransferSessionResponse]) -> None:
    arrive(engine, messages)
    go_on(engine)


def chunks_of(outputs: list[SessionOutput]) -> dict[int, bytes]:
    chunks = outputs_of(outputs, "a", generator_pb2.GeneratedChunk)
    return {chunk.video.header.chunk_index: chunk.video.latents.data for chunk in chunks}


@pytest.mark.parametrize("passes", range(4))
def test_a_session_that_moves_in_the_middle_of_a_chunk_goes_on_bit_for_bit(
    here: GeneratorEngine, there: GeneratorEngine, passes: int
) -> None:
    undisturbed = chunks_of(begin(here, 6))
    here.close("a")
    outputs = begin(here, 2)
    submit(here, 3, 4)
    for _ in range(passes):
        outputs += here.step()
    ask_for(here)
    outputs += run_dry(here)
    in_progress = {3} if passes else set()
    # The chunk in progress is answered before the state leaves, and none is begun after it was asked for.
    kinds = [owner for owner, _ in outputs]
    assert kinds == ["a"] * (2 + len(in_progress)) + [leaving_id("a")] * kinds.count(leaving_id("a"))
    messages = outputs_of(outputs, leaving_id("a"), generator_pb2.TransferSessionResponse)
    assert [message.WhichOneof("response") for message in messages] == ["state"] + ["part"] * messages[0].state.parts
    arrive(there, messages)
    ready = go_on(there)
    assert ready.border == chunk_pb2.ChunkBorder(epoch=1, chunk_index=2 + len(in_progress))
    submit(there, *range(ready.border.chunk_index + 1, 7))
    assert chunks_of(outputs) | chunks_of(run_dry(there)) == undisturbed
    assert not here.has_work()


def test_a_session_can_move_before_its_first_chunk(here: GeneratorEngine, there: GeneratorEngine) -> None:
    undisturbed = chunks_of(begin(here, 1))
    here.close("a")
    begin(here, 0)
    messages = leave(here)
    assert len(messages) == 1
    arrive(there, messages)
    assert go_on(there).border.chunk_index == 0
    submit(there, 1)
    assert chunks_of(run_dry(there)) == undisturbed


def test_a_session_that_is_being_rebuilt_moves_when_it_is(here: GeneratorEngine, there: GeneratorEngine) -> None:
    answers = outputs_of(begin(here, 3), "a", generator_pb2.GeneratedChunk)
    rewind = generator_pb2.GenerateRewind(border=chunk_pb2.ChunkBorder(epoch=2, chunk_index=2))
    for answer in answers[:2]:
        rewind.replay.add(speech=speech(answer.video.header.chunk_index, SEED), video=answer.video)
    here.close("a")
    resumed = config("a", SEED)
    resumed.resume.rewind.CopyFrom(rewind)
    here.open("a", resumed)
    messages = leave(here)
    assert messages[0].state.border == rewind.border
    arrive(there, messages)
    go_on(there)
    submit(there, 3, epoch=2)
    assert chunks_of(run_dry(there))[3] == answers[2].video.latents.data


def test_a_transfer_that_breaks_off_leaves_the_session_where_it_was(here: GeneratorEngine) -> None:
    undisturbed = chunks_of(begin(here, 4))
    here.close("a")
    outputs = begin(here, 2)
    submit(here, 3)
    here.step()
    ask_for(here)
    submit(here, 4)
    while not any(owner == leaving_id("a") for owner, _ in outputs):
        outputs += here.step()
    assert here.has_work(), "some parts are to come"
    here.close(leaving_id("a"))
    outputs += run_dry(here)
    assert chunks_of(outputs) == undisturbed


def test_a_session_whose_state_is_out_waits_until_it_is_closed_or_the_transfer_is(here: GeneratorEngine) -> None:
    begin(here, 1)
    leave(here)
    submit(here, 2)
    assert not here.has_work()
    here.close(leaving_id("a"))
    assert list(chunks_of(run_dry(here))) == [2]
    leave(here)
    here.close("a")
    assert not here.has_work()


@pytest.mark.parametrize("what", ["rewind", "close"])
def test_a_session_that_does_not_stay_as_it_was_ends_the_transfer(here: GeneratorEngine, what: str) -> None:
    begin(here, 3)
    ask_for(here)
    here.step()
    if what == "rewind":
        here.rewind("a", generator_pb2.GenerateRewind(border=chunk_pb2.ChunkBorder(epoch=2, chunk_index=2)))
        submit(here, 3, epoch=2)
    else:
        here.close("a")
    outputs = run_dry(here)
    (error,) = [output for owner, output in outputs if owner == leaving_id("a")]
    assert isinstance(error, StageUnavailable)
    assert list(chunks_of(outputs)) == ([3] if what == "rewind" else [])


def test_another_session_is_served_while_a_state_leaves(here: GeneratorEngine) -> None:
    begin(here, 1)
    here.open("b", config("b"))
    here.submit("b", speech(1, seconds_left=-5.0), time.monotonic() - 1.0)
    ask_for(here)
    owners = [owner for owner, _ in run_dry(here)]
    assert owners[0] == "b"


def test_there_is_no_state_of_a_session_that_is_not_here(here: GeneratorEngine) -> None:
    with pytest.raises(NotFound):
        ask_for(here)


def spoil_first(messages: list[Any], **changes: Any) -> None:
    for name, value in changes.items():
        setattr(messages[1].part, name, value)


BAD_PARTS: dict[str, Callable[[list[Any]], object]] = {
    "part.name": lambda messages: spoil_first(messages, name="weights"),
    "part.tensor": lambda messages: messages[1].part.tensor.shape.append(2),
    "part.offset": lambda messages: spoil_first(messages, offset=4),
    "part.offset, too long": lambda messages: spoil_first(messages, data=bytes(10**6)),
    "part.offset, twice": lambda messages: messages.insert(2, messages[1]),
}


@pytest.mark.parametrize("field", BAD_PARTS)
def test_a_part_that_cannot_be_is_refused(here: GeneratorEngine, there: GeneratorEngine, field: str) -> None:
    begin(here, 1)
    messages = leave(here)
    BAD_PARTS[field](messages)
    with pytest.raises(InvalidInput) as refusal:
        arrive(there, messages)
    assert refusal.value.field == field.partition(",")[0]


@pytest.mark.parametrize("what", ["nothing", "a part missing", "another seed", "another model"])
def test_a_state_that_is_not_whole_or_not_this_session_s_does_not_open(
    here: GeneratorEngine, there: GeneratorEngine, what: str
) -> None:
    begin(here, 1)
    messages = leave(here)
    if what == "another seed":
        messages[0].state.seed = 6
    elif what == "another model":
        messages[0].state.model.fingerprint = "other"
    messages = {"nothing": [], "a part missing": messages[:-1]}.get(what, messages)
    error: type[VisavisError] = ModelMismatch if what == "another model" else StageUnavailable
    with pytest.raises(error):
        arrive_and_go_on(there, messages)


@pytest.mark.parametrize("data_type", [torch.float32, torch.bfloat16])
def test_a_state_travels_exactly_in_messages_under_a_mebibyte(
    data_type: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    shape = (3, 2, 257, 1001)
    keys, values = (torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(data_type) for seed in (1, 2))
    model, border = chunk_pb2.ModelIdentity(name="m"), chunk_pb2.ChunkBorder(epoch=2, chunk_index=9)
    messages = list(leaving_state(model, border, 3, Context(keys, values)))
    assert len(messages) == 1 + messages[0].state.parts > 5
    assert max(message.ByteSize() for message in messages) < 1 << 20
    arriving = ArrivingState(messages[0].state, shape, data_type)
    for message in messages[1:]:
        assert not arriving.complete
        arriving.add(message.part)
    context = arriving.context(torch.device("cpu"))
    assert context is not None
    assert torch.equal(context.keys_LRND, keys)
    assert torch.equal(context.values_LRND, values)
