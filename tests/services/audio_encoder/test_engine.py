import time
from collections.abc import Iterator

import pytest
import torch

from services.audio_encoder.engine import AudioEncoderEngine
from tests.services.audio_encoder.messages import AHEAD, CHUNK, chunk_of, clip
from tests.services.engine_driver import header, outputs_of, run_dry
from tests.services.tiny_settings import audio_encoder_settings
from visavis.models.tensors import tensor_from_message
from visavis.runtime.engine import SessionOutput
from visavis.runtime.errors import InvalidInput
from visavis.v1 import audio_encoder_pb2


@pytest.fixture(scope="module")
def warm_engine() -> AudioEncoderEngine:
    torch.set_num_threads(1)
    engine = AudioEncoderEngine(audio_encoder_settings())
    engine.warm_up()
    return engine


@pytest.fixture
def engine(warm_engine: AudioEncoderEngine) -> Iterator[AudioEncoderEngine]:
    yield warm_engine
    for session_id in ("a", "b", "c"):
        warm_engine.close(session_id)


def encode(engine: AudioEncoderEngine, seed: int) -> list[audio_encoder_pb2.EncodedChunk]:
    engine.open("a", audio_encoder_pb2.EncodeConfig(session_id="a"))
    for index in (1, 2, 3):
        engine.submit("a", chunk_of(clip(seed), index), time.monotonic())
    answers = outputs_of(run_dry(engine), "a", audio_encoder_pb2.EncodedChunk)
    engine.close("a")
    return answers


def latents_of(answers: list[audio_encoder_pb2.EncodedChunk]) -> list[bytes]:
    return [answer.speech.latents.data for answer in answers]


def test_ready_says_the_model(engine: AudioEncoderEngine) -> None:
    ready = engine.open("a", audio_encoder_pb2.EncodeConfig(session_id="a"))
    assert isinstance(ready, audio_encoder_pb2.EncodeReady)
    assert ready.model.fingerprint == engine.describe().model_fingerprint


def test_latents_are_bit_for_bit_those_of_the_model(engine: AudioEncoderEngine) -> None:
    encoder = engine._loaded.module
    samples = torch.from_numpy(clip(1))
    state = encoder.initial_state()
    for index, answer in enumerate(encode(engine, 1), start=1):
        end = CHUNK * index
        expected, state = encoder.encode_chunk(samples[end - CHUNK : end], samples[end : end + AHEAD], state)
        assert torch.equal(tensor_from_message(answer.speech.latents), expected)
        assert answer.speech.header.chunk_index == index
        assert answer.timing.computed.ToNanoseconds() > 0


def test_two_runs_give_the_same_bits_and_other_speech_others(engine: AudioEncoderEngine) -> None:
    assert latents_of(encode(engine, 1)) == latents_of(encode(engine, 1)) != latents_of(encode(engine, 2))


def test_sessions_side_by_side_give_the_same_bits_as_alone(engine: AudioEncoderEngine) -> None:
    seeds = {"a": 1, "b": 2, "c": 3}
    alone = {name: latents_of(encode(engine, seed)) for name, seed in seeds.items()}
    for name in seeds:
        engine.open(name, audio_encoder_pb2.EncodeConfig(session_id=name))
    outputs: list[SessionOutput] = []
    for index in (1, 2, 3):
        for name, seed in seeds.items():
            engine.submit(name, chunk_of(clip(seed), index), time.monotonic())
            outputs += engine.step()
    outputs += run_dry(engine)
    assert {name: latents_of(outputs_of(outputs, name, audio_encoder_pb2.EncodedChunk)) for name in seeds} == alone


def test_what_is_missing_of_the_lookahead_is_silence(engine: AudioEncoderEngine) -> None:
    answers = []
    for lookahead in (b"", bytes(4 * AHEAD)):
        engine.open("a", audio_encoder_pb2.EncodeConfig(session_id="a"))
        item = chunk_of(clip(1), 1)
        item.lookahead = lookahead
        engine.submit("a", item, time.monotonic())
        answers += outputs_of(run_dry(engine), "a", audio_encoder_pb2.EncodedChunk)
        engine.close("a")
    first, second = latents_of(answers)
    assert first == second


def test_a_closed_session_is_forgotten(engine: AudioEncoderEngine) -> None:
    engine.open("a", audio_encoder_pb2.EncodeConfig(session_id="a"))
    engine.submit("a", chunk_of(clip(1), 1), time.monotonic())
    engine.close("a")
    engine.close("a")
    assert not engine.has_work()
    assert engine.step() == []


def test_samples_that_are_none_are_refused_and_change_nothing(engine: AudioEncoderEngine) -> None:
    engine.open("a", audio_encoder_pb2.EncodeConfig(session_id="a"))
    with pytest.raises(InvalidInput) as caught:
        engine.submit("a", audio_encoder_pb2.SpeechChunk(header=header(1), samples=b"odd"), time.monotonic())
    assert caught.value.field == "chunk.samples"
    assert not engine.has_work()


def test_there_is_nothing_to_call(engine: AudioEncoderEngine) -> None:
    with pytest.raises(InvalidInput):
        engine.call(audio_encoder_pb2.EncodeConfig())
