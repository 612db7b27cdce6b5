"""Without the sink, without context: streaming and training leave out the same, and exactly that."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.models.small_transformer import SETTINGS, plan, portrait, session, small_transformer, speech
from visavis.models.generation import ChunkInProgress
from visavis.models.id_context import Cache
from visavis.models.sequence import forward_sequence

CHUNKS = 3
ONE_BRANCH = replace(SETTINGS, guidance_scale=1.0)


def streamed(cache: Cache, portrait_seed: int = 1, first_speech: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    """Of each chunk: its noise, its first velocity, what it became: `[I, T, H, W, C]` each."""
    sampling = plan(small_transformer(), replace(ONE_BRANCH, cache=cache))
    state = session(sampling, portrait_seed=portrait_seed)
    noises, velocities, finished = [], [], []
    time, next_time = sampling.schedule.times[:2]
    for index in range(CHUNKS):
        chunk = ChunkInProgress(speech(first_speech if index == 0 else 20 + index), state)
        noises.append(chunk.latents_THWC)
        chunk.advance()
        velocities.append((chunk.latents_THWC - noises[-1]) / (next_time - time))
        while not chunk.advance():
            pass
        latents, state = chunk.result()
        finished.append(latents)
    return torch.stack(noises), torch.stack(velocities), torch.stack(finished)


@pytest.mark.parametrize("cache", ["full", "no_sink", "no_context"])
@torch.no_grad()
def test_streaming_equals_the_sequence_that_training_uses(cache: Cache) -> None:
    noises, velocities, finished = streamed(cache)
    heard = torch.stack([speech(10), *(speech(20 + index) for index in range(1, CHUNKS))])
    sequence = forward_sequence(
        small_transformer(),
        portrait(1),
        noises[None],
        torch.full((1, CHUNKS), 1000.0),
        heard[None],
        clean_latents_BITHWC=finished[None],
        cache=cache,
    )
    torch.testing.assert_close(sequence[0], velocities, atol=1e-4, rtol=1e-4)


def test_without_context_a_chunk_knows_nothing_of_the_one_before() -> None:
    (_, one, _), (_, other, _) = streamed("no_context"), streamed("no_context", first_speech=11)
    assert not torch.allclose(one[0], other[0])
    assert torch.equal(one[1:], other[1:])
    (_, one, _), (_, other, _) = streamed("full"), streamed("full", first_speech=11)
    assert not torch.allclose(one[1], other[1])


@torch.no_grad()
def test_without_the_sink_the_first_chunk_alone_sees_the_portrait() -> None:
    def velocities(portrait_seed: int, cache: Cache) -> Tensor:
        generator = torch.Generator().manual_seed(4)
        noisy, clean = torch.randn(2, 1, CHUNKS, 3, 2, 3, 8, generator=generator)
        heard = torch.stack([speech(index) for index in range(CHUNKS)])[None]
        # One block: nothing reaches a chunk but what its own attention shows it.
        model = small_transformer()
        model.transformer_blocks = model.transformer_blocks[:1]
        times = torch.full((1, CHUNKS), 500.0)
        return forward_sequence(
            model, portrait(portrait_seed), noisy, times, heard, clean_latents_BITHWC=clean, cache=cache
        )

    one, other = velocities(1, "no_sink"), velocities(2, "no_sink")
    assert not torch.allclose(one[:, 0], other[:, 0])
    assert torch.equal(one[:, 1:], other[:, 1:])
    assert not torch.allclose(velocities(1, "full")[:, 1:], velocities(2, "full")[:, 1:])
