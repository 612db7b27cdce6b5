"""A generator samples in one way: fast means half the rows and steps, and sessions of the other way are refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from services.generator.engine import GeneratorEngine
from tests.services.engine_driver import outputs_of, run_dry
from tests.services.generator.messages import config, speech
from tests.services.tiny_settings import generator_settings
from visavis.models.a2v_dit import A2VTransformer
from visavis.runtime.errors import ModelMismatch
from visavis.v1 import generator_pb2


def warm(sampling: str, max_batch: int = 1) -> GeneratorEngine:
    torch.set_num_threads(1)
    engine = GeneratorEngine(generator_settings(sampling=sampling, max_batch=max_batch))
    engine.warm_up()
    return engine


@pytest.fixture(scope="module")
def standard() -> GeneratorEngine:
    return warm("standard", max_batch=4)


@pytest.fixture(scope="module")
def fast() -> GeneratorEngine:
    return warm("fast", max_batch=4)


def rows_of(engine: GeneratorEngine, sessions: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of every pass that this many sessions with one chunk each cost, joined or not."""
    rows: list[int] = []

    def counted(pass_over: Callable[..., Any]) -> Callable[..., Any]:
        def run(transformer: A2VTransformer, latents_RTHWC: torch.Tensor, *rest: Any, **named: Any) -> Any:
            rows.append(len(latents_RTHWC))
            return pass_over(transformer, latents_RTHWC, *rest, **named)

        return run

    names = [f"session-{number}" for number in range(sessions)]
    for name in names:
        engine.open(name, config(name, 1))
        engine.submit(name, speech(1, 1), time.monotonic())
    with monkeypatch.context() as patched:
        patched.setattr(A2VTransformer, "forward", counted(A2VTransformer.forward))
        patched.setattr(A2VTransformer, "remember", counted(A2VTransformer.remember))
        outputs = run_dry(engine)
    for name in names:
        assert len(outputs_of(outputs, name, generator_pb2.GeneratedChunk)) == 1
        engine.close(name)
    return rows


@pytest.mark.parametrize("sessions", [1, 3])
def test_one_branch_computes_half_the_rows_in_half_the_steps(
    standard: GeneratorEngine, fast: GeneratorEngine, sessions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of `tiny`: 2 steps and a pass for the context of two branches, against 1 step and that pass of one."""
    assert sum(rows_of(standard, sessions, monkeypatch)) == sessions * 2 * 3
    assert sum(rows_of(fast, sessions, monkeypatch)) == sessions * 1 * 2


def test_a_fast_session_keeps_half_the_cache(standard: GeneratorEngine, fast: GeneratorEngine) -> None:
    assert 2 * fast._model.context_bytes == standard._model.context_bytes


def test_a_generator_says_how_it_samples(standard: GeneratorEngine, fast: GeneratorEngine) -> None:
    assert (standard.describe().sampling, fast.describe().sampling) == ("standard", "fast")
    assert standard.describe().model_fingerprint == fast.describe().model_fingerprint
    ready = fast.open("a", config("a", 1))
    assert isinstance(ready, generator_pb2.GenerateReady)
    assert ready.model.sampling == "fast"
    fast.close("a")


@pytest.mark.parametrize(
    ("preset", "pinned"),
    [
        (generator_pb2.SAMPLING_PRESET_STANDARD, ""),
        (generator_pb2.SAMPLING_PRESET_UNSPECIFIED, "standard"),
        (generator_pb2.SAMPLING_PRESET_FAST, "fast:0123456789abcdef"),
    ],
)
def test_a_session_of_another_way_or_adapter_is_refused(
    fast: GeneratorEngine, preset: generator_pb2.SamplingPreset.ValueType, pinned: str
) -> None:
    asked = config("a", 1)
    asked.sampling, asked.pinned_sampling = preset, pinned
    with pytest.raises(ModelMismatch, match="samples fast"):
        fast.open("a", asked)
    assert not fast.has_work()


@pytest.mark.parametrize(
    ("preset", "pinned"),
    [(generator_pb2.SAMPLING_PRESET_UNSPECIFIED, ""), (generator_pb2.SAMPLING_PRESET_FAST, "fast")],
)
def test_a_session_of_its_own_way_is_taken(
    fast: GeneratorEngine, preset: generator_pb2.SamplingPreset.ValueType, pinned: str
) -> None:
    asked = config("a", 1)
    asked.sampling, asked.pinned_sampling = preset, pinned
    fast.open("a", asked)
    fast.close("a")


def test_the_state_of_the_other_way_is_refused(standard: GeneratorEngine, fast: GeneratorEngine) -> None:
    state = generator_pb2.TransferredState(model=standard._loaded.identity_message())
    with pytest.raises(ModelMismatch, match="tiny standard"):
        fast.open("arriving", state)
