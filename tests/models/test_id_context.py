"""The ID-Context cache: chunk by chunk equals the whole sequence, and the past stays as it is."""

from __future__ import annotations

import torch

from tests.models.small_transformer import (
    CHANNELS,
    COLUMNS,
    ROWS,
    SPEECH_CHANNELS,
    SPEECH_TOKENS,
    small_transformer,
)
from visavis.models.a2v_dit import A2VTransformer
from visavis.models.attention import attend_heads
from visavis.models.id_context import (
    Context,
    IsolatedMemory,
    Sink,
    SlotRotations,
    Window,
    Windows,
    slot_rotations,
)
from visavis.models.rotary import rotate
from visavis.models.sequence import forward_sequence

CHUNKS, FRAMES = 4, 3
TOKENS = ROWS * COLUMNS
TIMESTEPS = torch.tensor([[900.0, 400.0, 650.0, 100.0]])


def clip(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Portrait, noisy latents, clean latents, speech."""
    torch.manual_seed(seed)
    shape = (1, CHUNKS, FRAMES, ROWS, COLUMNS, CHANNELS)
    speech = torch.randn(1, CHUNKS, FRAMES, SPEECH_TOKENS, SPEECH_CHANNELS)
    return torch.randn(1, ROWS, COLUMNS, CHANNELS), torch.randn(shape), torch.randn(shape), speech


def rotations(model: A2VTransformer) -> SlotRotations:
    return slot_rotations(FRAMES, ROWS, COLUMNS, model.width, torch.device("cpu"))


@torch.no_grad()
def chunk_by_chunk(model: A2VTransformer, source: str) -> torch.Tensor:
    """Velocities through the cache, one window a chunk."""
    portrait, noisy, clean, speech = clip()
    at = {time: model.modulate(torch.tensor([time])) for time in [0.0, *TIMESTEPS[0].tolist()]}
    first = torch.zeros(1, 1, dtype=torch.long)
    memory = IsolatedMemory(rotations(model).sink_NP)
    text = model.encode_text()
    model.remember(portrait[:, None], at[0.0].select(first), memory, text=text)
    sink = Sink(torch.cat(memory.keys), torch.cat(memory.values))

    context: Context | None = None
    velocities = []
    for chunk in range(CHUNKS):
        window = Window([sink], context, rotations(model))
        folded = model.fold_speech(speech[:, chunk])
        now = at[TIMESTEPS[0, chunk].item()].select(first)
        if source == "last_step":
            window.start_recording()
        velocities.append(model(noisy[:, chunk], now, window, folded, text))
        if source == "clean":
            window.start_recording()
            model.remember(clean[:, chunk], at[0.0].select(first), window, folded, text)
        context = window.recorded()
    return torch.stack(velocities, dim=1)


class DenselyMaskedMemory:
    """The reference: all tokens of the sequence in one attention with an explicit mask over (token, token) pairs.

    Tokens are the ID latent, the clean chunks, the noisy chunks. Keys of clean chunks occur twice, turned as context
    and turned as current.
    """

    def __init__(self, parts: SlotRotations) -> None:
        self._parts = parts
        count = FRAMES * TOKENS
        chunk_of = torch.arange(CHUNKS).repeat_interleave(count)
        sink = torch.full((TOKENS,), -1)
        # Columns: sink, clean as context, clean as current, noisy as current.
        rows = torch.cat([sink, chunk_of, chunk_of])[:, None]
        row_kind = torch.cat([sink, torch.full_like(chunk_of, 1), torch.full_like(chunk_of, 2)])[:, None]
        columns = torch.cat([sink, chunk_of, chunk_of, chunk_of])[None]
        kind = torch.cat([sink, *(torch.full_like(chunk_of, part) for part in (0, 1, 2))])[None]
        before = (kind == 0) & (columns == rows - 1) & (rows >= 0)
        own = (kind == row_kind) & (columns == rows) & (rows >= 0)
        self.visible = (kind == -1) | before | own
        self._turn = torch.cat([parts.sink_NP, *[parts.current_NP] * (2 * CHUNKS)])
        self._turn_context = torch.cat([parts.context_NP] * CHUNKS)

    def attend(self, block: int, queries_keys_RN2D: torch.Tensor, values_RND: torch.Tensor, heads: int) -> torch.Tensor:
        queries, keys = rotate(queries_keys_RN2D, self._turn[:, None]).unbind(2)
        clean = slice(TOKENS, TOKENS + CHUNKS * FRAMES * TOKENS)
        context = rotate(queries_keys_RN2D[:, clean, 1], self._turn_context)
        keys = torch.cat([keys[:, :TOKENS], context, keys[:, TOKENS:]], dim=1)
        values = torch.cat([values_RND[:, :TOKENS], values_RND[:, clean], values_RND[:, TOKENS:]], dim=1)
        return attend_heads(queries, keys, values, heads, self.visible)

    def remember(self, block: int, keys_RND: torch.Tensor, values_RND: torch.Tensor) -> None:
        raise AssertionError("the reference needs every output")


@torch.no_grad()
def densely_masked(model: A2VTransformer) -> torch.Tensor:
    portrait, noisy, clean, speech = clip()
    latents = torch.cat([portrait[:, None], clean.flatten(1, 2), noisy.flatten(1, 2)], dim=1)
    times = torch.cat([torch.zeros(1 + CHUNKS * FRAMES), TIMESTEPS[0].repeat_interleave(FRAMES)])
    modulation = model.modulate(times).select(torch.arange(len(times))[None])
    frames = torch.cat([speech[:, :1, 0], speech.flatten(1, 2), speech.flatten(1, 2)], dim=1)
    folded = model.fold_speech(frames)
    for part in folded:
        part.values_RTMD[:, 0] = 0
    velocity = model(latents, modulation, DenselyMaskedMemory(rotations(model)), folded, model.encode_text())
    result: torch.Tensor = velocity[:, 1 + CHUNKS * FRAMES :].unflatten(1, (CHUNKS, FRAMES))
    return result


def test_chunk_by_chunk_equals_one_densely_masked_forward() -> None:
    for prompt_tokens in (0, 5):
        model = small_transformer(prompt_tokens=prompt_tokens)
        torch.testing.assert_close(chunk_by_chunk(model, "clean"), densely_masked(model), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_chunk_by_chunk_equals_the_sequence_that_training_uses() -> None:
    model = small_transformer(prompt_tokens=5)
    portrait, noisy, clean, speech = clip()
    with_clean = forward_sequence(model, portrait, noisy, TIMESTEPS, speech, clean_latents_BITHWC=clean)
    torch.testing.assert_close(chunk_by_chunk(model, "clean"), with_clean, atol=1e-4, rtol=1e-4)
    from_noisy = forward_sequence(model, portrait, noisy, TIMESTEPS, speech)
    torch.testing.assert_close(chunk_by_chunk(model, "last_step"), from_noisy, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_sequence_of_two_clips_equals_each_alone() -> None:
    model = small_transformer()
    clips = [clip(seed) for seed in (0, 1)]
    portrait, noisy, clean, speech = (torch.cat(parts) for parts in zip(*clips, strict=True))
    has_speech = torch.tensor([1, 0])
    both = forward_sequence(
        model, portrait, noisy, TIMESTEPS.expand(2, -1), speech, clean_latents_BITHWC=clean, has_speech_B=has_speech
    )
    for index, (own_portrait, own_noisy, own_clean, own_speech) in enumerate(clips):
        alone = forward_sequence(
            model,
            own_portrait,
            own_noisy,
            TIMESTEPS,
            own_speech,
            clean_latents_BITHWC=own_clean,
            has_speech_B=has_speech[index : index + 1],
        )
        torch.testing.assert_close(both[index : index + 1], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_future_cannot_change_the_past() -> None:
    model = small_transformer()
    portrait, noisy, clean, speech = clip()
    before = forward_sequence(model, portrait, noisy, TIMESTEPS, speech, clean_latents_BITHWC=clean)
    noisy[:, 2:], clean[:, 2:], speech[:, 2:] = 7.0, -3.0, 5.0
    after = forward_sequence(model, portrait, noisy, TIMESTEPS, speech, clean_latents_BITHWC=clean)
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.allclose(before[:, 2:], after[:, 2:])


def test_gradients_flow_through_sink_and_context() -> None:
    model = small_transformer()
    portrait, noisy, clean, speech = clip()
    for tensor in (portrait, clean, speech):
        tensor.requires_grad_()
    velocities = forward_sequence(model, portrait, noisy, TIMESTEPS, speech, clean_latents_BITHWC=clean)
    velocities[:, 2].square().mean().backward()
    assert portrait.grad is not None
    assert clean.grad is not None
    assert speech.grad is not None
    assert portrait.grad.abs().sum() > 0
    # Chunk 2 sees chunk 1 as context, which was itself made with chunk 0 in view; it does not see its own clean self.
    reached = [bool(clean.grad[:, chunk].abs().sum() > 0) for chunk in range(CHUNKS)]
    assert reached == [True, True, False, False]
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if "to_k" in name)


@torch.no_grad()
def test_windows_of_two_sessions_equal_each_alone() -> None:
    model = small_transformer()
    parts = rotations(model)
    torch.manual_seed(0)
    sinks = [Sink(torch.randn(1, TOKENS, 32), torch.randn(1, TOKENS, 32)) for _ in range(3)]
    context = Context(torch.randn(1, 2, FRAMES * TOKENS, 32), torch.randn(1, 2, FRAMES * TOKENS, 32))
    queries_keys, values = torch.randn(3, FRAMES * TOKENS, 2, 32), torch.randn(3, FRAMES * TOKENS, 32)

    def windows() -> list[Window]:
        return [Window(sinks[:2], context, parts), Window(sinks[2:], None, parts)]

    together = Windows(windows()).attend(0, queries_keys, values, 2)
    first, second = windows()
    torch.testing.assert_close(together[:2], first.attend(0, queries_keys[:2], values[:2], 2))
    torch.testing.assert_close(together[2:], second.attend(0, queries_keys[2:], values[2:], 2))


def test_slots_are_fixed() -> None:
    parts = slot_rotations(3, 1, 1, 48, torch.device("cpu"))
    # The angle of time grows by the same amount from each latent frame to the next, through all three parts.
    angles = torch.cat([parts.sink_NP, parts.context_NP, parts.current_NP])
    steps = angles[1:] / angles[:-1]
    torch.testing.assert_close(steps, steps[:1].expand_as(steps), atol=2e-3, rtol=0)
    assert len(angles) == 7
