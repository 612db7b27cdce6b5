"""READ's window: what every chunk is denoised beside, and what it cannot depend on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.models.small_transformer import (
    COLUMNS,
    ROWS,
    SETTINGS,
    SPEECH_CHANNELS,
    SPEECH_TOKENS,
    plan,
    portrait,
    small_transformer,
)
from visavis.models.full_attention import forward_clip
from visavis.models.generation import SamplingSettings
from visavis.models.noise import chunk_noise
from visavis.models.read_generation import generate_rolling, step_borders

SEED = 7
FOUR_STEPS = replace(SETTINGS, steps=4)
# First chunk of the window, and the steps done by its four chunks before and after a pass: four steps, six chunks.
PASSES = [
    (0, (0, 0, 0, 0), (1, 1, 1, 0)),
    (0, (1, 1, 1, 0), (2, 2, 1, 0)),
    (0, (2, 2, 1, 0), (3, 2, 1, 0)),
    (0, (3, 2, 1, 0), (4, 3, 2, 1)),
    (1, (3, 2, 1, 0), (4, 3, 2, 1)),
    (2, (3, 2, 1, 0), (4, 3, 2, 1)),
    (2, (4, 3, 2, 1), (4, 4, 3, 2)),
    (2, (4, 4, 3, 2), (4, 4, 4, 3)),
    (2, (4, 4, 4, 3), (4, 4, 4, 4)),
]


def speech(chunks: int) -> torch.Tensor:
    """Speech latents `[chunks, 3, W, D]`."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(chunks, 3, SPEECH_TOKENS, SPEECH_CHANNELS, generator=generator)


def roll(speech_ITWD: torch.Tensor, settings: SamplingSettings = FOUR_STEPS, seed: int = SEED) -> torch.Tensor:
    """All chunks' latents."""
    sampling = plan(small_transformer(), settings)
    return torch.stack(list(generate_rolling(speech_ITWD, portrait(), seed, sampling)))


@torch.no_grad()
def by_the_table(speech_ITWD: torch.Tensor, settings: SamplingSettings) -> torch.Tensor:
    """The reference: `PASSES`, each as two clips of a batch, the second without ID and speech, guided and followed."""
    model = small_transformer()
    times = plan(model, settings).schedule.times
    shape = (3, ROWS, COLUMNS, model.in_channels)
    latents_ITHWC = torch.stack([chunk_noise(SEED, index, shape) for index in range(1, 1 + len(speech_ITWD))])
    portraits = torch.cat([portrait(), torch.zeros_like(portrait())])
    for first, before, after in PASSES:
        window = slice(first, first + 4)
        timesteps = torch.tensor([[1000 * times[step] for step in before]]).repeat_interleave(3, dim=1)
        conditional, unconditional = forward_clip(
            model,
            portraits,
            latents_ITHWC[window].flatten(0, 1).expand(2, -1, -1, -1, -1),
            timesteps.expand(2, -1),
            speech_ITWD[window].flatten(0, 1).expand(2, -1, -1, -1),
            has_speech_B=torch.tensor([1, 0]),
        ).unflatten(1, (4, 3))
        velocity = unconditional + settings.guidance_scale * (conditional - unconditional)
        stride = torch.tensor([times[to] - times[fro] for fro, to in zip(before, after, strict=True)])
        latents_ITHWC[window] += stride[:, None, None, None, None] * velocity
    return latents_ITHWC


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_the_window_rolls_as_the_table_says(guidance_scale: float) -> None:
    settings = replace(FOUR_STEPS, guidance_scale=guidance_scale)
    torch.testing.assert_close(roll(speech(6), settings), by_the_table(speech(6), settings), atol=1e-4, rtol=1e-4)


def test_speech_counts_until_the_third_chunk_after_and_no_further() -> None:
    whole, other = speech(7), speech(7)
    other[5:] *= -2.0
    before, after = roll(whole), roll(other)
    assert torch.equal(before[:2], after[:2])
    assert not torch.allclose(before[2], after[2])
    # Nor does it count whether anything comes at all.
    assert torch.equal(roll(whole[:5])[:2], before[:2])


def test_a_chunk_comes_as_soon_as_the_three_after_it_are_there() -> None:
    taken = 0

    def endless() -> Iterator[torch.Tensor]:
        nonlocal taken
        while True:
            taken += 1
            yield speech(1)[0]

    chunks = generate_rolling(endless(), portrait(), SEED, plan(small_transformer(), FOUR_STEPS))
    for index in range(1, 4):
        next(chunks)
        assert taken == index + 3


def test_seed_and_portrait_decide() -> None:
    assert torch.equal(roll(speech(4)), roll(speech(4)))
    assert not torch.allclose(roll(speech(4)), roll(speech(4), seed=SEED + 1))
    sampling = plan(small_transformer(), FOUR_STEPS)
    other = torch.stack(list(generate_rolling(speech(4), portrait(9), SEED, sampling)))
    assert not torch.allclose(roll(speech(4)), other)


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_any_number_of_steps_works(steps: int) -> None:
    latents = roll(speech(5), replace(SETTINGS, steps=steps))
    assert len(latents) == 5
    assert bool(latents.isfinite().all())


@given(st.integers(1, 1000))
def test_places_share_the_steps_evenly(steps: int) -> None:
    borders = step_borders(steps)
    assert (borders[0], borders[-1]) == (0, steps)
    strides = [after - before for before, after in pairwise(borders)]
    assert len(strides) == 4
    assert max(strides) - min(strides) <= 1


def test_mistakes_are_named() -> None:
    assert len(list(generate_rolling([], portrait(), SEED, plan(small_transformer())))) == 0
    with pytest.raises(ValueError, match="filled up to 4"):
        roll(speech(3))
    with pytest.raises(ValueError, match="speech latents of a chunk"):
        roll(speech(4)[:, :2])
    with pytest.raises(ValueError, match="portrait latent"):
        list(generate_rolling(speech(4), portrait()[:, :1], SEED, plan(small_transformer())))
    with pytest.raises(ValueError, match="seed"):
        roll(speech(4), seed=-1)
