import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from services.generator.engine import GeneratorEngine
from tests.services.engine_driver import outputs_of, random_tensor, run_dry
from tests.services.generator.messages import config, portrait_latent, speech
from tests.services.tiny_settings import ADMISSION, generator_settings
from visavis.models.generation import begin_session, generate_chunk
from visavis.models.tensors import tensor_from_message
from visavis.runtime.engine import SessionOutput
from visavis.runtime.errors import InvalidInput
from visavis.v1 import chunk_pb2, generator_pb2


@pytest.fixture(scope="module")
def warm_engine() -> GeneratorEngine:
    torch.set_num_threads(1)
    engine = GeneratorEngine(generator_settings())
    engine.warm_up()
    return engine


@pytest.fixture
def engine(warm_engine: GeneratorEngine) -> Iterator[GeneratorEngine]:
    yield warm_engine
    for session_id in ("a", "b", "c"):
        warm_engine.close(session_id)


def generate(engine: GeneratorEngine, seed: int, chunks: int = 3) -> list[generator_pb2.GeneratedChunk]:
    """One session from its start to its end; its chunks arrive at the same instant."""
    engine.open("a", config("a", seed))
    arrival = time.monotonic()
    for index in range(1, chunks + 1):
        engine.submit("a", speech(index, seed), arrival)
    answers = outputs_of(run_dry(engine), "a", generator_pb2.GeneratedChunk)
    engine.close("a")
    return answers


def latents_of(answers: list[generator_pb2.GeneratedChunk]) -> list[bytes]:
    return [answer.video.latents.data for answer in answers]


def test_ready_says_the_model(engine: GeneratorEngine) -> None:
    ready = engine.open("a", config("a", 1))
    assert isinstance(ready, generator_pb2.GenerateReady)
    assert ready.model.name == engine.describe().model_name == "tiny"
    assert ready.model.fingerprint == engine.describe().model_fingerprint


def test_latents_are_bit_for_bit_those_of_the_model(engine: GeneratorEngine) -> None:
    answers = generate(engine, seed=5)
    state = begin_session(
        engine._loaded.module,
        tensor_from_message(portrait_latent()),
        5,
        engine._loaded.preset.sampling,
    )
    for index, answer in enumerate(answers, start=1):
        expected, state = generate_chunk(tensor_from_message(speech(index, 5).latents), state)
        assert torch.equal(tensor_from_message(answer.video.latents), expected)
    assert len(answers) == 3


def test_chunks_are_answered_once_and_in_order(engine: GeneratorEngine) -> None:
    answers = generate(engine, seed=5, chunks=4)
    assert [answer.video.header.chunk_index for answer in answers] == [1, 2, 3, 4]
    queued = [answer.timing.queued.ToNanoseconds() for answer in answers]
    assert queued == sorted(queued)
    assert all(answer.timing.computed.ToNanoseconds() > 0 for answer in answers)


def test_two_runs_give_the_same_bits_and_another_seed_others(engine: GeneratorEngine) -> None:
    assert latents_of(generate(engine, 5)) == latents_of(generate(engine, 5)) != latents_of(generate(engine, 6))


def test_sessions_side_by_side_give_the_same_bits_as_alone(engine: GeneratorEngine) -> None:
    seeds = {"a": 5, "b": 6, "c": 7}
    alone = {name: latents_of(generate(engine, seed)) for name, seed in seeds.items()}
    for name, seed in seeds.items():
        engine.open(name, config(name, seed))
    outputs: list[SessionOutput] = []
    for index in (1, 2, 3):
        for name, seed in seeds.items():
            # Deadlines that cross: the engine goes back and forth between sessions within a chunk.
            left = 0.5 - 0.1 * index + 0.2 * (seed % 2)
            engine.submit(name, speech(index, seed, seconds_left=left), time.monotonic())
            outputs += engine.step()
    outputs += run_dry(engine)
    together = {name: latents_of(outputs_of(outputs, name, generator_pb2.GeneratedChunk)) for name in seeds}
    assert together == alone


def test_an_urgent_chunk_overtakes_one_that_is_being_denoised(engine: GeneratorEngine) -> None:
    for name in ("a", "b"):
        engine.open(name, config(name, 1))
    arrival = time.monotonic()
    engine.submit("a", speech(1, 1, seconds_left=0.9), arrival)
    assert engine.step() == []
    engine.submit("b", speech(1, 1, seconds_left=0.1), arrival)
    assert [session_id for session_id, _ in run_dry(engine)] == ["b", "a"]


def test_latents_leave_before_the_pass_that_makes_the_context(engine: GeneratorEngine) -> None:
    steps = engine._loaded.preset.sampling.steps
    engine.open("a", config("a", 1))
    engine.submit("a", speech(1, 1), time.monotonic())
    answers = [engine.step() for _ in range(steps)]
    assert [len(answer) for answer in answers] == [0] * (steps - 1) + [1]
    assert engine.has_work()
    assert engine.step() == []
    assert not engine.has_work()


def test_the_pass_for_the_context_waits_for_what_is_due(engine: GeneratorEngine) -> None:
    steps = engine._loaded.preset.sampling.steps
    for name in ("a", "b"):
        engine.open(name, config(name, 1))
    engine.submit("a", speech(1, 1), time.monotonic())
    for _ in range(steps):
        engine.step()
    engine.submit("b", speech(1, 1), time.monotonic())
    assert [len(engine.step()) for _ in range(steps)] == [0] * (steps - 1) + [1]


def test_a_closed_session_is_forgotten_in_the_middle_of_a_chunk(engine: GeneratorEngine) -> None:
    engine.open("a", config("a", 1))
    engine.submit("a", speech(1, 1), time.monotonic())
    engine.submit("a", speech(2, 1), time.monotonic())
    engine.step()
    engine.close("a")
    engine.close("a")
    assert not engine.has_work()
    assert engine.step() == []


def test_an_avatar_s_sink_is_computed_once(engine: GeneratorEngine) -> None:
    for name in ("a", "b"):
        engine.open(name, config(name, 1))
    assert engine._sessions["a"].borders.state.sink is engine._sessions["b"].borders.state.sink


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 2, 2, 16), ()])
def test_a_portrait_latent_of_another_model_is_refused(engine: GeneratorEngine, shape: tuple[int, ...]) -> None:
    bad = config("a", 1)
    bad.portrait_latent.CopyFrom(random_tensor(1, shape))
    with pytest.raises(InvalidInput) as caught:
        engine.open("a", bad)
    assert caught.value.field == "config.portrait_latent"


def test_speech_latents_that_do_not_fit_are_refused(engine: GeneratorEngine) -> None:
    engine.open("a", config("a", 1))
    good = speech(1, 1)
    wrong_shape, missing, not_finite = (chunk_pb2.SpeechLatents() for _ in range(3))
    for item in (wrong_shape, missing, not_finite):
        item.CopyFrom(good)
    wrong_shape.latents.shape[0] = 2
    missing.ClearField("latents")
    not_finite.latents.data = np.full(list(good.latents.shape), np.nan, np.float32).tobytes()
    for item in (wrong_shape, missing, not_finite):
        with pytest.raises(InvalidInput) as caught:
            engine.submit("a", item, time.monotonic())
        assert caught.value.field == "speech.latents"
    assert not engine.has_work()


def test_it_counts_how_many_sessions_the_device_keeps() -> None:
    torch.set_num_threads(1)
    measured = replace(ADMISSION, slots=0, headroom=0.15)
    engine = GeneratorEngine(generator_settings(max_batch=4, admission=measured))
    engine.warm_up()
    description = engine.describe()
    assert description.real_time_sessions is not None
    assert description.slots == max(1, description.real_time_sessions)
    small = GeneratorEngine(generator_settings(admission=replace(measured, memory_bytes=_bytes_of(engine, sessions=3))))
    small.warm_up()
    assert small.describe().slots <= 3


def _bytes_of(engine: GeneratorEngine, sessions: int) -> int:
    """Memory that so many sessions of `engine` take beside its sinks, and 15 % that stay free."""
    engine.open("a", config("a"))
    for index in range(1, 12):
        engine.submit("a", speech(index), time.monotonic())
    run_dry(engine)
    contexts = engine.cache_bytes()["context"]
    sinks = engine._settings.sink_capacity * engine.cache_bytes()["sink"]
    return int((sessions * (contexts + engine._model.session_bytes) + sinks) / 0.85) + 1


def test_a_device_without_room_for_a_session_does_not_start() -> None:
    tight = replace(ADMISSION, memory_bytes=1000)
    with pytest.raises(RuntimeError, match="memory"):
        GeneratorEngine(generator_settings(admission=tight)).warm_up()


def test_there_is_nothing_to_call(engine: GeneratorEngine) -> None:
    with pytest.raises(InvalidInput):
        engine.call(generator_pb2.GenerateConfig())
