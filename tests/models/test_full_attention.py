"""Full attention over a clip: everything sees everything, but for the ID latent, which sees itself alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.models.small_transformer import CHANNELS, COLUMNS, ROWS, SPEECH_CHANNELS, SPEECH_TOKENS, small_transformer
from visavis.models.a2v_dit import A2VTransformer
from visavis.models.full_attention import ClipMemory, clip_rotation, forward_clip
from visavis.models.id_context import Sink
from visavis.models.rotary import rotate, rotation

FRAMES = 12
TOKENS = ROWS * COLUMNS
# Four segments, the earlier the cleaner, and a level for each latent frame.
SEGMENTS = torch.tensor([[100.0, 400.0, 650.0, 900.0]]).repeat_interleave(3, dim=1)
EACH_ITS_OWN = torch.linspace(40.0, 920.0, FRAMES)[None]


def clip(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Portrait, noisy latents, speech."""
    torch.manual_seed(seed)
    latents = torch.randn(1, FRAMES, ROWS, COLUMNS, CHANNELS)
    return torch.randn(1, ROWS, COLUMNS, CHANNELS), latents, torch.randn(1, FRAMES, SPEECH_TOKENS, SPEECH_CHANNELS)


class PlainMemory:
    """The reference: all 13 latent frames' tokens in one attention, with an explicit mask."""

    def __init__(self, width: int) -> None:
        self._turn_N1P = rotation(range(1 + FRAMES), ROWS, COLUMNS, width)[:, None]
        self._visible = torch.ones((1 + FRAMES) * TOKENS, (1 + FRAMES) * TOKENS, dtype=torch.bool)
        self._visible[:TOKENS, TOKENS:] = False

    def attend(self, block: int, queries_keys_RN2D: torch.Tensor, values_RND: torch.Tensor, heads: int) -> torch.Tensor:
        queries, keys = rotate(queries_keys_RN2D, self._turn_N1P).unbind(2)
        split = [part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (queries, keys, values_RND)]
        attended = F.scaled_dot_product_attention(split[0], split[1], split[2], attn_mask=self._visible)
        return attended.transpose(1, 2).flatten(2)

    def remember(self, block: int, keys_RND: torch.Tensor, values_RND: torch.Tensor) -> None:
        raise AssertionError("the reference needs every output")


@torch.no_grad()
def plain(model: A2VTransformer, timesteps: torch.Tensor, *, has_speech: bool = True) -> torch.Tensor:
    """Velocities from one forward pass over ID latent and clip."""
    portrait, latents, speech = clip()
    times = torch.cat([torch.zeros(1, 1), timesteps], dim=1)[0]
    modulation = model.modulate(times).select(torch.arange(1 + FRAMES)[None])
    folded = model.fold_speech(torch.cat([speech[:, :1], speech], dim=1))
    for part in folded:
        part.values_RTMD[:, : 1 if has_speech else None] = 0
    whole = torch.cat([portrait[:, None], latents], dim=1)
    velocities: torch.Tensor = model(whole, modulation, PlainMemory(model.width), folded, model.encode_text())
    return velocities[:, 1:]


@torch.no_grad()
def test_a_clip_equals_one_plain_attention_over_all_tokens() -> None:
    for prompt_tokens in (0, 5):
        model = small_transformer(prompt_tokens=prompt_tokens)
        for timesteps in (SEGMENTS, EACH_ITS_OWN):
            portrait, latents, speech = clip()
            velocities = forward_clip(model, portrait, latents, timesteps, speech)
            torch.testing.assert_close(velocities, plain(model, timesteps), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_clips_of_a_batch_keep_to_themselves_and_hear_what_they_are_given() -> None:
    model = small_transformer()
    portrait, latents, speech = clip()
    other_portrait, other_latents, other_speech = clip(seed=1)
    together = forward_clip(
        model,
        torch.cat([portrait, other_portrait]),
        torch.cat([latents, other_latents]),
        torch.cat([EACH_ITS_OWN, SEGMENTS]),
        torch.cat([speech, other_speech]),
        has_speech_B=torch.tensor([0, 1]),
    )
    torch.testing.assert_close(together[:1], plain(model, EACH_ITS_OWN, has_speech=False), atol=1e-4, rtol=1e-4)
    alone = forward_clip(model, other_portrait, other_latents, SEGMENTS, other_speech)
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-5)


def test_every_latent_frame_learns_from_every_other() -> None:
    model = small_transformer()
    portrait, latents, speech = clip()
    for given in (portrait, latents, speech):
        given.requires_grad_()
    forward_clip(model, portrait, latents, SEGMENTS, speech)[:, 5].square().mean().backward()
    assert latents.grad is not None
    assert speech.grad is not None
    assert portrait.grad is not None
    assert bool((latents.grad.abs().sum(dim=(0, 2, 3, 4)) > 0).all())
    assert bool((speech.grad.abs().sum(dim=(0, 2, 3)) > 0).all())
    assert portrait.grad.abs().sum() > 0


def test_sinks_are_the_rows_of_a_memory() -> None:
    torch.manual_seed(0)
    sinks = [Sink(torch.randn(2, TOKENS, 32), torch.randn(2, TOKENS, 32)) for _ in range(2)]
    turn = clip_rotation(FRAMES, ROWS, COLUMNS, 32, torch.device("cpu"))
    queries_keys, values = torch.randn(2, FRAMES * TOKENS, 2, 32), torch.randn(2, FRAMES * TOKENS, 32)
    both = ClipMemory.of_sinks(sinks, turn)
    attended = both.attend(1, queries_keys, values, 2)
    for row, sink in enumerate(sinks):
        rows = slice(row, row + 1)
        own = ClipMemory.of_sinks([sink], turn).attend(1, queries_keys[rows], values[rows], 2)
        torch.testing.assert_close(attended[rows], own)
        torch.testing.assert_close(both.part(rows).attend(1, queries_keys[rows], values[rows], 2), own)
