"""Streaming generation: steps, batches, guidance, determinism."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.models.small_transformer import SETTINGS, plan, portrait, session, small_transformer, speech
from visavis.models.checkpoints import placed
from visavis.models.generation import (
    ChunkInProgress,
    GenerationState,
    SamplingSettings,
    begin_session,
    compute_sink,
    denoise_step,
    generate_chunk,
)
from visavis.models.noise import chunk_noise


def run(state: GenerationState, chunks: int) -> list[torch.Tensor]:
    latents = []
    for index in range(chunks):
        chunk, state = generate_chunk(speech(seed=10 + index), state)
        latents.append(chunk)
    return latents


def test_a_session_of_four_chunks_is_deterministic_and_alive() -> None:
    transformer = small_transformer(prompt_tokens=3)
    first, second = (run(session(plan(transformer)), 4) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert all(chunk.isfinite().all() for chunk in first)
    assert all(0.1 < chunk.std() < 10 for chunk in first)
    assert not torch.allclose(first[0], first[1])


def test_seed_portrait_speech_and_past_each_matter() -> None:
    shared = plan(small_transformer())
    state = session(shared)
    latents, after = generate_chunk(speech(), state)
    others = [
        generate_chunk(speech(), session(shared, seed=4))[0],
        generate_chunk(speech(), session(shared, portrait_seed=9))[0],
        generate_chunk(speech(seed=9), state)[0],
    ]
    assert all(not torch.allclose(latents, other, atol=1e-3) for other in others)
    second = generate_chunk(speech(), after)[0]
    without_past = generate_chunk(speech(), replace(after, context=None))[0]
    assert not torch.allclose(second, without_past, atol=1e-3)


def test_an_older_state_stays_good_to_go_back_to() -> None:
    shared = plan(small_transformer())
    _, border = generate_chunk(speech(), session(shared))
    first = run(border, 2)
    assert all(torch.equal(one, other) for one, other in zip(first, run(border, 2), strict=True))
    assert border.chunk_index == 2


@pytest.mark.parametrize("prompt_tokens", [0, 3])
def test_batched_sessions_at_different_steps_equal_each_alone(prompt_tokens: int) -> None:
    shared = plan(small_transformer(prompt_tokens=prompt_tokens))
    states = [session(shared, seed=seed, portrait_seed=seed) for seed in (1, 2, 3)]
    # One of them has a past, so windows differ in size.
    _, states[1] = generate_chunk(speech(), states[1])
    alone = [generate_chunk(speech(seed), state) for seed, state in enumerate(states)]

    chunks = [ChunkInProgress(speech(seed), state) for seed, state in enumerate(states)]
    chunks[0].advance()
    chunks[2].advance()
    chunks[2].advance()
    while waiting := [chunk for chunk in chunks if not chunk.done]:
        denoise_step(waiting)
    for chunk, (latents, state) in zip(chunks, alone, strict=True):
        batched, batched_state = chunk.result()
        torch.testing.assert_close(batched, latents, atol=1e-4, rtol=1e-4)
        assert batched_state.context is not None
        assert state.context is not None
        torch.testing.assert_close(batched_state.context.keys_LRND, state.context.keys_LRND, atol=1e-4, rtol=1e-4)


def test_a_scale_of_one_is_the_conditional_branch() -> None:
    transformer = small_transformer()
    guided = plan(transformer, SETTINGS)
    one_branch = plan(transformer, replace(SETTINGS, guidance_scale=1.0))
    assert one_branch.guidance is None
    # The same two branches, mixed with a scale of 1.
    mixed = replace(guided, guidance=lambda conditional, unconditional: torch.lerp(unconditional, conditional, 1.0))
    for expected, actual in zip(run(session(one_branch), 3), run(session(mixed), 3), strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(run(session(guided), 1)[0], run(session(one_branch), 1)[0], atol=1e-3)


def test_the_unconditional_branch_knows_neither_speech_nor_portrait() -> None:
    transformer = small_transformer()
    shared = replace(plan(transformer), guidance=lambda conditional, unconditional: unconditional)
    one, other = session(shared, portrait_seed=1), session(shared, portrait_seed=2)
    for index in range(2):
        latents, one = generate_chunk(speech(seed=index), one)
        others, other = generate_chunk(speech(seed=50 + index), other)
        assert torch.equal(latents, others)


def test_cache_sources_share_the_first_chunk_only() -> None:
    transformer = small_transformer()
    last_step = plan(transformer, replace(SETTINGS, cache_source="last_step"))
    assert (plan(transformer).passes, last_step.passes) == (SETTINGS.steps + 1, SETTINGS.steps)
    from_clean, from_last = run(session(plan(transformer)), 2), run(session(last_step), 2)
    assert torch.equal(from_clean[0], from_last[0])
    assert not torch.allclose(from_clean[1], from_last[1], atol=1e-4)


def test_latents_are_ready_one_pass_before_the_chunk_is_done() -> None:
    chunk = ChunkInProgress(speech(), session(plan(small_transformer())))
    for _ in range(SETTINGS.steps):
        assert not chunk.latents_ready
        assert not chunk.advance()
    ready = chunk.latents_THWC.clone()
    assert chunk.latents_ready
    with pytest.raises(ValueError, match="not done"):
        chunk.result()
    assert chunk.advance()
    assert torch.equal(chunk.result()[0], ready)
    with pytest.raises(ValueError, match="none that is done"):
        chunk.advance()


def test_fusing_changes_nothing_that_matters() -> None:
    plain, fused = small_transformer(prompt_tokens=3), small_transformer(prompt_tokens=3)
    fused.fuse()
    for expected, actual in zip(run(session(plan(plain)), 3), run(session(plan(fused)), 3), strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def test_it_runs_in_bfloat16_near_float32() -> None:
    settings = SamplingSettings(steps=2, shift=2.5857, guidance_scale=1.0, cache_source="clean")
    exact = run(session(plan(small_transformer(), settings)), 2)
    rounded = run(session(plan(placed(small_transformer(), torch.device("cpu"), torch.bfloat16), settings)), 2)
    assert all(chunk.dtype == torch.bfloat16 for chunk in rounded)
    for expected, actual in zip(exact, rounded, strict=True):
        assert (actual.float() - expected).std() < 0.05 * expected.std()


def test_a_given_sink_equals_a_computed_one() -> None:
    shared = plan(small_transformer())
    sink = compute_sink(portrait(), shared)
    state = begin_session(shared.transformer, portrait(), 3, shared.settings, plan=shared, sink=sink)
    assert torch.equal(generate_chunk(speech(), state)[0], generate_chunk(speech(), session(shared))[0])
    unprepared = begin_session(shared.transformer, portrait(), 3, shared.settings)
    assert torch.equal(generate_chunk(speech(), unprepared)[0], generate_chunk(speech(), state)[0])


def test_callers_mistakes_are_named() -> None:
    shared = plan(small_transformer())
    with pytest.raises(ValueError, match="portrait latent must be"):
        compute_sink(torch.zeros(1, 9, 9, 8), shared)
    with pytest.raises(ValueError, match="speech latents of a chunk must be"):
        ChunkInProgress(torch.zeros(2, 2, 12), session(shared))
    with pytest.raises(ValueError, match="64-bit"):
        session(shared, seed=-1)
    with pytest.raises(ValueError, match="at least one chunk"):
        denoise_step([])
    other = ChunkInProgress(speech(), session(plan(small_transformer())))
    with pytest.raises(ValueError, match="different transformers"):
        denoise_step([ChunkInProgress(speech(), session(shared)), other])
    # A refused batch leaves its chunks as they were.
    assert other.passes_done == 0


def test_noise_is_a_function_of_seed_and_index_alone() -> None:
    shape = (3, 4, 4, 8)
    noise = chunk_noise(7, 3, shape)
    torch.manual_seed(99)
    assert torch.equal(noise, chunk_noise(7, 3, shape))
    others = [chunk_noise(*pair, shape) for pair in ((7, 4), (8, 3), (3, 7), (7 + 2**32, 3))]
    assert all(not torch.equal(noise, other) for other in others)
    assert chunk_noise(2**64 - 1, 2**64 - 1, (20_000,)).std() == pytest.approx(1.0, abs=0.03)
    with pytest.raises(ValueError, match="64-bit"):
        chunk_noise(2**64, 1, shape)
