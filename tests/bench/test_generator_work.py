"""The bound is counted right, and the plain generator computes what ours does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.models.small_transformer import CHANNELS, SETTINGS, portrait, small_transformer, speech
from visavis.bench.diffusers_generator import DiffusersGenerator
from visavis.bench.generator_work import (
    Rates,
    TransformerSize,
    ValueBytes,
    Work,
    chunk_passes,
    chunk_seconds,
    context_pass,
    folding,
    velocity_pass,
)
from visavis.bench.plain_generator import PlainWindow, plain_chunk
from visavis.models.generation import (
    ChunkInProgress,
    GenerationState,
    SamplingPlan,
    begin_session,
    denoise_step,
    generate_chunk,
    prepare_sampling,
)
from visavis.models.noise import chunk_noise
from visavis.models.presets import load_preset

ROWS = 2
FLOAT32 = ValueBytes(4, 4)


def square_plan(prompt_tokens: int = 0, guidance_scale: float = 6.0) -> SamplingPlan:
    transformer = small_transformer(prompt_tokens=prompt_tokens)
    return prepare_sampling(transformer, replace(SETTINGS, guidance_scale=guidance_scale), ROWS, ROWS)


def states(sampling: SamplingPlan, sessions: int) -> list[GenerationState]:
    return [
        begin_session(sampling.transformer, portrait(seed)[:, :ROWS, :ROWS], seed, sampling.settings, plan=sampling)
        for seed in range(sessions)
    ]


def size_of(sampling: SamplingPlan) -> TransformerSize:
    return TransformerSize.of(sampling.transformer.config, ROWS)


def counted(job: Callable[[], object]) -> int:
    counter = FlopCounterMode(display=False)
    # The CPU's own attention kernel is none that the counter knows.
    with counter, sdpa_kernel(SDPBackend.MATH):
        job()
    return counter.get_total_flops()


@pytest.mark.parametrize("prompt_tokens", [0, 3])
@pytest.mark.parametrize("guidance_scale", [1.0, 6.0])
@pytest.mark.parametrize("sessions", [1, 2])
def test_operations_are_those_that_torch_counts(sessions: int, guidance_scale: float, prompt_tokens: int) -> None:
    sampling = square_plan(prompt_tokens, guidance_scale)
    size, rows = size_of(sampling), sessions * (1 if guidance_scale == 1 else 2)
    later = [generate_chunk(speech(), state)[1] for state in states(sampling, sessions)]
    chunks: list[ChunkInProgress] = []
    made_ready = counted(lambda: chunks.extend(ChunkInProgress(speech(), state) for state in later))
    assert made_ready == folding(size, sessions, FLOAT32).operations
    for _ in range(sampling.settings.steps):
        assert counted(lambda: denoise_step(chunks)) == velocity_pass(size, rows, FLOAT32).operations
    # The last block's queries come with its keys and values in one product; nobody needs them.
    queries = rows * 2 * size.chunk_tokens * size.width**2
    assert counted(lambda: denoise_step(chunks)) == context_pass(size, rows, FLOAT32).operations + queries


def test_a_chunk_is_the_sum_of_its_passes() -> None:
    size = size_of(square_plan())
    passes = chunk_passes(size, sessions=2, branches=2, steps=3, clean_pass=True, value_bytes=FLOAT32)
    parts = [folding(size, 2, FLOAT32), *[velocity_pass(size, 4, FLOAT32)] * 3, context_pass(size, 4, FLOAT32)]
    assert passes == parts
    without = chunk_passes(size, sessions=2, branches=2, steps=3, clean_pass=False, value_bytes=FLOAT32)
    assert without == parts[:-1]


def test_the_slower_of_arithmetic_and_memory_bounds_a_pass() -> None:
    rates = Rates(linear_operations=200.0, other_operations=100.0, moved_bytes=10.0)
    assert rates.seconds(Work(400.0, 300.0, 10.0)) == 5.0
    assert rates.seconds(Work(400.0, 300.0, 100.0)) == 10.0
    assert chunk_seconds([Work(400.0, 300.0, 10.0), Work(400.0, 300.0, 100.0)], rates) == 15.0


def test_weights_are_read_once_however_many_sessions() -> None:
    size = TransformerSize.of(load_preset("base").transformer, 16)
    one, two, three = (velocity_pass(size, rows, ValueBytes(2, 2)).moved_bytes for rows in (1, 2, 3))
    assert two - one == three - two > 0
    weights = one - (two - one)
    # Of 1.92 B parameters, keys and values of the text and the embedding of times are computed once a session or plan.
    assert 2 * 1.5e9 < weights < 2 * 1.92e9


def test_bytes_of_int8_weights_are_a_quarter() -> None:
    size = size_of(square_plan())
    saved = velocity_pass(size, 1, FLOAT32).moved_bytes - velocity_pass(size, 1, ValueBytes(1, 4)).moved_bytes
    assert saved == 3 * size.blocks * 12 * size.width**2


def test_a_generator_has_the_work_that_was_counted_otherwise() -> None:
    """104 GFLOP a chunk, the pass for the context included: docs/log.md has it of mini when it had 10 blocks of 320."""
    mini = load_preset("mini")
    size = TransformerSize.of({**mini.transformer, "num_layers": 10, "num_attention_heads": 5}, mini.latent_rows)
    passes = chunk_passes(size, sessions=1, branches=2, steps=8, clean_pass=True, value_bytes=FLOAT32)
    assert sum(work.operations for work in passes) == pytest.approx(104e9, rel=0.05)


@pytest.mark.parametrize("prompt_tokens", [0, 3])
@pytest.mark.parametrize("guidance_scale", [1.0, 6.0])
def test_the_plain_generator_equals_ours(guidance_scale: float, prompt_tokens: int) -> None:
    sampling = square_plan(prompt_tokens, guidance_scale)
    before = states(sampling, 2)
    speeches = [torch.stack([speech(seed=10 * chunk + row) for row in range(2)]) for chunk in range(2)]
    clean = torch.stack([portrait(seed)[:, :ROWS, :ROWS] for seed in range(2)]).flatten(2, 3)
    heard: list[torch.Tensor] = []
    branches = 1 if guidance_scale == 1 else 2
    with torch.no_grad():
        for chunk, speech_RTWA in enumerate(speeches, start=1):
            results = [generate_chunk(part, state) for part, state in zip(speech_RTWA, before, strict=True)]
            expected = torch.stack([latents for latents, _ in results]).flatten(2, 3)
            heard.append(speech_RTWA)
            window = PlainWindow.of_sessions(clean, torch.cat(heard, dim=1), branches)
            noise = torch.stack([chunk_noise(seed, chunk, sampling.chunk_shape) for seed in range(2)]).flatten(2, 3)
            torch.testing.assert_close(plain_chunk(noise, window, sampling), expected, atol=1e-4, rtol=1e-4)
            clean = torch.cat([clean, expected], dim=1)
            before = [state for _, state in results]


def test_the_plain_way_works_on_a_fused_transformer() -> None:
    plain, fused = square_plan(), square_plan()
    fused.transformer.fuse()
    noise, clean = torch.randn(1, 3, 4, CHANNELS), torch.randn(1, 1, 4, CHANNELS)
    window = PlainWindow.of_sessions(clean, speech()[None], 2)
    with torch.no_grad():
        assert torch.equal(plain_chunk(noise, window, plain), plain_chunk(noise, window, fused))


def test_diffusers_denoises_the_window_s_last_chunk() -> None:
    sampling = square_plan()
    size = size_of(sampling)
    generator = DiffusersGenerator(size, torch.device("cpu"), torch.float32)
    window = torch.randn(2, size.window_tokens, CHANNELS)
    with torch.no_grad():
        latents = generator.chunk(window, sampling)
    assert latents.shape == (2, size.chunk_tokens, CHANNELS)
    assert not torch.equal(latents, window[:, -size.chunk_tokens :])
