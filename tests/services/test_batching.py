"""Sessions that share passes equal the same sessions alone within float error, in each of the three engines."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from services.audio_encoder.engine import AudioEncoderEngine
from services.decoder.engine import DecoderEngine
from services.generator.engine import GeneratorEngine
from services.pass_times import PassTimes
from tests.services.audio_encoder.messages import chunk_of, clip
from tests.services.decoder import messages as decoding
from tests.services.engine_driver import run_dry
from tests.services.generator import messages as generating
from tests.services.tiny_settings import audio_encoder_settings, decoder_settings, generator_settings
from visavis.models.tensors import tensor_from_message
from visavis.runtime.engine import SessionOutput
from visavis.v1 import audio_encoder_pb2

# Any number of sessions costs what one does: whoever waits takes part.
SHARING_IS_FREE = PassTimes({1: 0.001, 2: 0.001, 4: 0.001})
PORTRAIT = generating.portrait_latent()
SPEECH = {seed: clip(seed, 4) for seed in range(1, 5)}


class Stage:
    """An engine with four sessions at most, and what it makes of their chunks."""

    def __init__(self, name: str) -> None:
        torch.set_num_threads(1)
        engines: dict[str, Any] = {
            "audio_encoder": lambda: AudioEncoderEngine(audio_encoder_settings(max_batch=4)),
            "generator": lambda: GeneratorEngine(generator_settings(max_batch=4)),
            # Its encoders have room for all chunks of four sessions: who shares a pass is not for them to say.
            "decoder": lambda: DecoderEngine(decoder_settings(encoding_threads=8, max_batch=4)),
        }
        self.name = name
        self.engine = engines[name]()
        self.engine.warm_up()
        self.engine._pass_times = SHARING_IS_FREE

    def open(self, seed: int) -> None:
        configs: dict[str, Any] = {
            "audio_encoder": audio_encoder_pb2.EncodeConfig(session_id=str(seed)),
            "generator": generating.config(str(seed), seed),
            "decoder": decoding.config(PORTRAIT, str(seed)),
        }
        self.engine.open(str(seed), configs[self.name])

    def submit(self, seed: int, index: int) -> None:
        items: dict[str, Any] = {
            "audio_encoder": lambda: chunk_of(SPEECH[seed], index),
            "generator": lambda: generating.speech(index, seed),
            "decoder": lambda: decoding.video(PORTRAIT, index, 100 * seed),
        }
        self.engine.submit(str(seed), items[self.name](), time.monotonic())

    def made(self, outputs: list[SessionOutput], seed: int) -> npt.NDArray[np.float32]:
        """What came out for a session, as one array; pictures from 0 to 1."""
        answers: list[Any] = [output for owner, output in outputs if owner == str(seed)]
        if self.name == "decoder":
            frames = [frame for answer in answers for frame in answer.frames]
            return decoding.raw_pictures(frames).astype(np.float32) / np.float32(255)
        part = "speech" if self.name == "audio_encoder" else "video"
        return torch.stack([tensor_from_message(getattr(answer, part).latents) for answer in answers]).numpy()

    def alone(self, seed: int) -> npt.NDArray[np.float32]:
        self.open(seed)
        for index in (1, 2, 3):
            self.submit(seed, index)
        outputs = run_dry(self.engine)
        self.engine.close(str(seed))
        return self.made(outputs, seed)


@pytest.fixture(scope="module", params=["audio_encoder", "generator", "decoder"])
def stage(request: pytest.FixtureRequest) -> Stage:
    return Stage(request.param)


def test_sessions_that_join_and_leave_a_batch_equal_themselves_alone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = {seed: stage.alone(seed) for seed in SPEECH}
    widths = record_widths(stage, monkeypatch)
    outputs: list[SessionOutput] = []
    # One after the other joins, so that the rows of a pass are at different chunks, steps and borders.
    for seed in SPEECH:
        stage.open(seed)
        for index in (1, 2, 3):
            stage.submit(seed, index)
        outputs += stage.engine.step()
    outputs += run_dry(stage.engine)
    for seed, expected in alone.items():
        # A picture's value may be rounded to the next one.
        tolerance = 1.01 / 255 if stage.name == "decoder" else 1e-4
        np.testing.assert_allclose(stage.made(outputs, seed), expected, atol=tolerance, rtol=1e-4)
        stage.engine.close(str(seed))
    assert max(widths) >= 3
    assert min(widths) == 1


def test_one_session_alone_has_the_bits_of_an_engine_that_never_batches(stage: Stage) -> None:
    batching = stage.alone(1)
    most, stage.engine._settings = stage.engine._settings, never_batching(stage)
    one_by_one = stage.alone(1)
    stage.engine._settings = most
    np.testing.assert_array_equal(batching, one_by_one)


def test_a_session_closed_in_the_middle_leaves_the_others_as_they_were(stage: Stage) -> None:
    expected = stage.alone(1)
    for seed in (1, 2, 3):
        stage.open(seed)
        for index in (1, 2, 3):
            stage.submit(seed, index)
    outputs = list(stage.engine.step())
    stage.engine.close("2")
    outputs += run_dry(stage.engine)
    tolerance = 1.01 / 255 if stage.name == "decoder" else 1e-4
    np.testing.assert_allclose(stage.made(outputs, 1), expected, atol=tolerance, rtol=1e-4)
    for seed in (1, 3):
        stage.engine.close(str(seed))
    assert not stage.engine.has_work()


def test_states_of_a_batch_do_not_keep_each_other_in_memory(stage: Stage) -> None:
    for seed in (1, 2):
        stage.open(seed)
        stage.submit(seed, 1)
    run_dry(stage.engine)
    kept = [tensors_of(stage.engine._sessions[str(seed)].borders.state) for seed in (1, 2)]
    for tensor in kept[0] + kept[1]:
        assert tensor.untyped_storage().nbytes() == tensor.nbytes
    assert not {tensor.data_ptr() for tensor in kept[0]} & {tensor.data_ptr() for tensor in kept[1]}
    for seed in (1, 2):
        stage.engine.close(str(seed))


def tensors_of(state: Any) -> list[torch.Tensor]:
    """What belongs to one session alone."""
    if hasattr(state, "caches"):
        return list(state.caches)
    if hasattr(state, "speech_ae"):
        return [state.past_samples_S, *state.speech_ae.pasts]
    return [state.context.keys_LRND, state.context.values_LRND]


def never_batching(stage: Stage) -> Any:
    settings: dict[str, Any] = {
        "audio_encoder": audio_encoder_settings,
        "generator": generator_settings,
        "decoder": decoder_settings,
    }
    return settings[stage.name](max_batch=1)


def record_widths(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sessions each pass serves, from now on."""
    widths: list[int] = []
    places: dict[str, tuple[Any, str]] = {
        "audio_encoder": (stage.engine._loaded.module, "encode_chunks"),
        "generator": (getattr(stage.engine, "_model", None), "advance"),
        "decoder": (getattr(stage.engine, "_model", None), "decode_chunks"),
    }
    owner, name = places[stage.name]
    run: Any = getattr(owner, name)

    def recorded(chunks: Any, *rest: Any) -> Any:
        widths.append(len(chunks))
        return run(chunks, *rest)

    monkeypatch.setattr(owner, name, recorded)
    return widths
