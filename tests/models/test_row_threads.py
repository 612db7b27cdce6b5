"""Rows side by side on CPU cores."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.models.small_transformer import SETTINGS, plan, session, small_transformer, speech
from visavis.models.generation import (
    CacheSource,
    ChunkInProgress,
    GenerationState,
    SamplingPlan,
    denoise_step,
    generate_chunk,
)
from visavis.models.row_threads import RowThreads
from visavis.models.step_runner import EagerRunner


@pytest.fixture(scope="module")
def threads() -> RowThreads:
    return RowThreads(3)


@given(rows=st.integers(1, 40), count=st.integers(1, 8))
def test_every_row_has_one_owner_and_shares_differ_by_one_at_most(rows: int, count: int) -> None:
    shares = [len(range(*part.indices(rows))) for part in RowThreads(count).split(rows)]
    assert sum(shares) == rows
    assert len(shares) == min(rows, count)
    assert max(shares) - min(shares) <= 1


def test_each_thread_computes_with_one_core_and_leaves_the_caller_alone(threads: RowThreads) -> None:
    before = torch.get_num_threads()
    barrier = threading.Barrier(3, timeout=100)

    def cores() -> int:
        barrier.wait()
        return torch.get_num_threads()

    assert threads.run([cores] * 3) == [1, 1, 1]
    assert torch.get_num_threads() == before


def test_threads_keep_no_gradients_and_take_over_the_inference_mode(threads: RowThreads) -> None:
    assert threads.run([torch.is_grad_enabled]) == [False]
    assert threads.run([torch.is_inference_mode_enabled]) == [False]
    with torch.inference_mode():
        assert threads.run([torch.is_inference_mode_enabled]) == [True]


def test_an_error_in_a_thread_reaches_the_caller(threads: RowThreads) -> None:
    def fail() -> None:
        raise ValueError("a row went wrong")

    with pytest.raises(ValueError, match="a row went wrong"):
        threads.run([lambda: None, fail])


def states(sampling: SamplingPlan) -> list[GenerationState]:
    """Three sessions, one of them at its second chunk."""
    first, second, third = (session(sampling, seed=seed) for seed in (3, 4, 5))
    return [generate_chunk(speech(), first)[1], second, third]


@pytest.mark.parametrize("cache_source", ["clean", "last_step"])
@pytest.mark.parametrize("guidance_scale", [1.0, 6.0])
def test_rows_side_by_side_equal_rows_in_one_batch(
    threads: RowThreads, guidance_scale: float, cache_source: CacheSource
) -> None:
    settings = replace(SETTINGS, guidance_scale=guidance_scale, cache_source=cache_source)
    together = plan(small_transformer(prompt_tokens=3), settings)
    apart = replace(together, runner=EagerRunner(together.transformer, threads))
    results = []
    for sampling in (together, apart):
        chunks = [
            ChunkInProgress(speech(seed=7 + index), replace(state, plan=sampling))
            for index, state in enumerate(states(together))
        ]
        while not chunks[0].done:
            denoise_step(chunks)
        results.append([chunk.result() for chunk in chunks])
    for (latents, state), (other_latents, other_state) in zip(*results, strict=True):
        torch.testing.assert_close(latents, other_latents, atol=1e-4, rtol=1e-4)
        assert state.context is not None
        assert other_state.context is not None
        torch.testing.assert_close(state.context.keys_LRND, other_state.context.keys_LRND, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(state.context.values_LRND, other_state.context.values_LRND, atol=1e-4, rtol=1e-4)


def test_side_by_side_is_deterministic(threads: RowThreads) -> None:
    sampling = plan(small_transformer())
    sampling = replace(sampling, runner=EagerRunner(sampling.transformer, threads))
    first, second = (generate_chunk(speech(), session(sampling))[0] for _ in range(2))
    assert torch.equal(first, second)
