"""The transformer: parity with LTX-Video, audio attention, fused inference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel

from tests.models.small_transformer import CHANNELS, COLUMNS, ROWS, SPEECH_CHANNELS, SPEECH_TOKENS, small_transformer
from visavis.models.a2v_dit import A2VTransformer
from visavis.models.attention import AudioAttention
from visavis.models.id_context import IsolatedMemory
from visavis.models.rotary import rotation

FRAMES = 4


def ltx_transformer() -> LTXVideoTransformer3DModel:
    torch.manual_seed(5)
    model: LTXVideoTransformer3DModel = LTXVideoTransformer3DModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        num_layers=3,
        caption_channels=10,
    ).eval()
    for name, parameter in model.named_parameters():
        if "norm_" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model


@pytest.mark.parametrize("fuse", [False, True])
@torch.no_grad()
def test_equals_ltx_video_with_its_weights_and_full_attention(fuse: bool) -> None:
    theirs, ours = ltx_transformer(), small_transformer(prompt_tokens=7, latent_prior=False)
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert not unexpected
    assert all("attn3" in name or name == "prompt_embedding" for name in missing)
    if fuse:
        ours.fuse()

    latents = torch.randn(2, FRAMES, ROWS, COLUMNS, CHANNELS)
    timesteps = torch.tensor([[0.0, 700.0, 700.0, 200.0], [0.0, 50.0, 500.0, 950.0]])
    tokens_a_frame = ROWS * COLUMNS
    expected = theirs(
        hidden_states=latents.flatten(1, 3),
        encoder_hidden_states=ours.prompt_embedding.expand(2, -1, -1),
        timestep=timesteps.repeat_interleave(tokens_a_frame, dim=1),
        encoder_attention_mask=torch.ones(2, 7),
        num_frames=FRAMES,
        height=ROWS,
        width=COLUMNS,
        rope_interpolation_scale=(8 / 25, 32, 32),
        return_dict=False,
    )[0].view_as(latents)

    memory = IsolatedMemory(rotation(range(FRAMES), ROWS, COLUMNS, ours.width))
    modulation = ours.modulate(timesteps.flatten()).select(torch.arange(2 * FRAMES).view(2, FRAMES))
    actual = ours(latents, modulation, memory, text=ours.encode_text())
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_prior_makes_the_velocity_of_the_last_layers_output() -> None:
    transformer = small_transformer()
    latents = torch.randn(2, FRAMES, ROWS, COLUMNS, CHANNELS)
    levels = torch.tensor([[0.0, 0.7, 0.7, 0.2], [0.0, 0.05, 0.5, 0.95]])
    memory = IsolatedMemory(rotation(range(FRAMES), ROWS, COLUMNS, transformer.width))
    modulation = transformer.modulate(1000 * levels.flatten()).select(torch.arange(2 * FRAMES).view(2, FRAMES))
    outputs: list[torch.Tensor] = []
    transformer.proj_out.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    found = transformer(latents, modulation, memory)
    assert transformer.prior is not None
    expected = transformer.prior.velocity(latents, levels, outputs[0].view(2, FRAMES, ROWS, COLUMNS, 2 * CHANNELS))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_folded_audio_attention_equals_the_plain_one() -> None:
    torch.manual_seed(0)
    width, heads = 32, 2
    attention = AudioAttention(width, heads, SPEECH_CHANNELS, epsilon=1e-6)
    torch.nn.init.uniform_(attention.norm_k.weight, 0.5, 1.5)
    hidden = torch.randn(2, 3, 5, width)
    speech = torch.randn(2, 3, SPEECH_TOKENS, SPEECH_CHANNELS)

    def split(channels: torch.Tensor) -> torch.Tensor:
        return channels.view(*channels.shape[:-1], heads, -1).transpose(-2, -3)

    queries = split(attention.to_q(torch.nn.functional.rms_norm(hidden, (width,), eps=1e-6)))
    keys, values = split(attention.norm_k(attention.to_k(speech))), split(attention.to_v(speech))
    attended = torch.nn.functional.scaled_dot_product_attention(queries, keys, values)
    expected = hidden + attention.to_out[0](attended.transpose(-2, -3).flatten(-2))

    torch.testing.assert_close(attention(hidden, attention.fold(speech)), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(attention(hidden, attention.fold(speech).silenced()), hidden)


def test_a_changed_weight_is_not_answered_from_the_fused_copy() -> None:
    model = small_transformer()
    model.fuse()
    replacement = small_transformer(seed=9)
    model.load_state_dict(replacement.state_dict())

    def velocity(transformer: A2VTransformer) -> torch.Tensor:
        memory = IsolatedMemory(rotation(range(3), ROWS, COLUMNS, transformer.width))
        modulation = transformer.modulate(torch.tensor([500.0])).select(torch.zeros(1, 1, dtype=torch.long))
        result: torch.Tensor = transformer(torch.ones(1, 3, ROWS, COLUMNS, CHANNELS), modulation, memory)
        return result

    with torch.no_grad():
        torch.testing.assert_close(velocity(model), velocity(replacement), atol=1e-5, rtol=1e-5)


def test_fusing_keeps_parameter_names_and_survives_saving(tmp_path: Path) -> None:
    model = small_transformer(prompt_tokens=4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.fuse()
    model.save_pretrained(tmp_path)
    loaded = A2VTransformer.from_pretrained(tmp_path)
    after = loaded.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(loaded.config[name] == value for name, value in model.config.items() if not name.startswith("_"))


def test_the_paper_size_has_the_stated_number_of_parameters() -> None:
    with torch.device("meta"):
        model = A2VTransformer()
    audio = sum(value.numel() for name, value in model.named_parameters() if "attn3" in name)
    total = sum(value.numel() for value in model.parameters())
    assert total - audio == pytest.approx(1.92e9, rel=0.01)
    assert total == pytest.approx(2.39e9, rel=0.01)
