"""After as many chunks as a state reaches back, a new state equals the undisturbed one bit for bit; after fewer not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor

from tests.models.small_transformer import plan, session, small_transformer, speech
from tests.models.speech_signals import voiced_signal
from tests.models.test_ltx_video_vae import V090, V091, V095, our_vae
from visavis.models.checkpoints import load_part
from visavis.models.generation import ChunkInProgress, GenerationState, SamplingPlan, generate_chunk
from visavis.models.reach import speech_encoder_reach, video_decoder_reach
from visavis.models.speech_encoder import SpeechEncoder
from visavis.models.speech_features import CHUNK_SAMPLES, LOOKAHEAD_SAMPLES
from visavis.models.video_autoencoder import VideoAutoencoder

State = TypeVar("State")
CHUNK_LATENT_FRAMES = 3


def rebuilt(
    chunks: Sequence[Any], start: State, advance: Callable[[Any, State], tuple[Tensor, State]], last: int
) -> Tensor:
    """What the final chunk gives when a new state has seen only the `last` chunks before it."""
    state = start
    for chunk in chunks[len(chunks) - 1 - last : -1]:
        _, state = advance(chunk, state)
    return advance(chunks[-1], state)[0]


def tiny_vae() -> VideoAutoencoder:
    vae: VideoAutoencoder = load_part("tiny", "vae", "cpu", "float32").module  # type: ignore[assignment]
    return vae


VIDEO_DECODERS: dict[str, Callable[[], VideoAutoencoder]] = {
    "tiny": tiny_vae,
    "0.9.0": lambda: our_vae(V090, decoder_causal=True),
    "0.9.1": lambda: our_vae(V091, decoder_causal=True),
    "0.9.5": lambda: our_vae(V095, decoder_causal=True),
    "overlapping": lambda: our_vae(V091, decoder_causal=False),
}


@pytest.mark.parametrize("name", VIDEO_DECODERS)
@torch.no_grad()
def test_a_video_decoder_is_rebuilt_from_its_last_chunks(name: str) -> None:
    vae = VIDEO_DECODERS[name]()
    generator = torch.Generator().manual_seed(1)
    channels = vae.latents_mean.shape[0]
    reach = video_decoder_reach(vae, CHUNK_LATENT_FRAMES)
    latents = [torch.randn(1, CHUNK_LATENT_FRAMES, 2, 2, channels, generator=generator) for _ in range(reach + 3)]
    start = vae.initial_decoder_state(torch.randn(1, 1, 2, 2, channels, generator=generator), seed=5)
    undisturbed = rebuilt(latents, start, vae.decode_chunk, len(latents) - 1)
    print(f"{name}: a decoder's state reaches back {reach} chunks")
    assert torch.equal(rebuilt(latents, start, vae.decode_chunk, reach), undisturbed)
    assert not torch.equal(rebuilt(latents, start, vae.decode_chunk, reach - 1), undisturbed)


@torch.no_grad()
def test_a_speech_encoder_is_rebuilt_from_its_last_chunks() -> None:
    encoder: SpeechEncoder = load_part("tiny", "speech_encoder", "cpu", "float32").module  # type: ignore[assignment]
    reach = speech_encoder_reach(encoder)
    count = reach + 3
    samples_S = voiced_signal(count * CHUNK_SAMPLES)
    starts = range(0, len(samples_S), CHUNK_SAMPLES)
    chunks = [
        (samples_S[at : at + CHUNK_SAMPLES], samples_S[at + CHUNK_SAMPLES :][:LOOKAHEAD_SAMPLES]) for at in starts
    ]

    def advance(chunk: tuple[Tensor, Tensor], state: Any) -> tuple[Tensor, Any]:
        return encoder.encode_chunk(*chunk, state)

    undisturbed = rebuilt(chunks, encoder.initial_state(), advance, count - 1)
    print(f"a speech encoder's state reaches back {reach} chunks")
    assert torch.equal(rebuilt(chunks, encoder.initial_state(), advance, reach), undisturbed)
    assert not torch.equal(rebuilt(chunks, encoder.initial_state(), advance, reach - 1), undisturbed)


def history(shared: SamplingPlan, chunks: int) -> tuple[list[Tensor], GenerationState]:
    """The latents of the first chunks, chunk i said by `speech(i)`, and the state behind them."""
    state, latents = session(shared), []
    for index in range(1, chunks + 1):
        chunk, state = generate_chunk(speech(index), state)
        latents.append(chunk)
    return latents, state


def replayed(shared: SamplingPlan, latents: Sequence[Tensor], last: int) -> GenerationState:
    """A new session's state after the contexts of the last chunks were made again."""
    first = len(latents) - last + 1
    state = replace(session(shared), chunk_index=first)
    for index in range(first, len(latents) + 1):
        chunk = ChunkInProgress(speech(index), state, replayed_latents_THWC=latents[index - 1])
        assert chunk.latents_ready
        assert chunk.advance()
        again, state = chunk.result()
        assert torch.equal(again, latents[index - 1])
    return state


def same_context(one: GenerationState, other: GenerationState) -> bool:
    assert one.context is not None
    assert other.context is not None
    return torch.equal(one.context.keys_LRND, other.context.keys_LRND) and torch.equal(
        one.context.values_LRND, other.context.values_LRND
    )


def test_a_context_is_rebuilt_exactly_from_as_many_chunks_as_there_are_blocks() -> None:
    shared = plan(small_transformer(prompt_tokens=3))
    assert shared.replay_chunks == 3
    latents, state = history(shared, 6)
    exact = replayed(shared, latents, shared.replay_chunks)
    assert exact.chunk_index == state.chunk_index == 7
    assert same_context(exact, state)
    assert torch.equal(generate_chunk(speech(9), exact)[0], generate_chunk(speech(9), state)[0])
    assert not same_context(replayed(shared, latents, shared.replay_chunks - 1), state)


def test_the_error_of_a_shorter_replay_falls_with_its_length() -> None:
    shared = plan(small_transformer())
    latents, state = history(shared, 6)
    undisturbed = generate_chunk(speech(9), state)[0]
    errors = []
    for last in range(shared.replay_chunks + 1):
        chunk = generate_chunk(speech(9), replayed(shared, latents, last))[0]
        errors.append(float((chunk - undisturbed).square().mean().sqrt() / undisturbed.std()))
    print(f"relative error of the next chunk's latents after 0, 1, ... replayed chunks: {errors}")
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0 < errors[-2]


def test_a_context_of_the_last_step_is_rebuilt_as_that_of_clean_latents() -> None:
    clean = plan(small_transformer())
    latents, _ = history(clean, 3)
    last_step = replace(clean, settings=replace(clean.settings, cache_source="last_step"))
    assert last_step.passes == clean.passes - 1
    assert same_context(replayed(last_step, latents, 3), replayed(clean, latents, 3))
