"""The mini video VAE at the size of `tiny`: streams exactly, is causal, starts linear, and learns."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from visavis.models.video_stream import DecoderState
from visavis.models.video_vae import CausalVideoVAE

TOLERANCE = 1e-4
SIZE = 64


def untrained_vae(seed: int = 0) -> CausalVideoVAE:
    torch.manual_seed(seed)
    vae: CausalVideoVAE = CausalVideoVAE(
        width=48, components=32, encoder_blocks=2, decoder_blocks=2, expansion=2, detail_channels=(8, 12)
    )
    vae.eval()
    return vae


@pytest.fixture(scope="module")
def vae() -> CausalVideoVAE:
    """As after training: no layer passes its input through, and the latents have statistics of their own."""
    vae = untrained_vae()
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        # Most of the picture within -1 to 1, so that clamping hides no difference.
        vae.decoder.pictures_out.weight.mul_(0.2)
        vae.set_latent_statistics(torch.randn(128), torch.rand(128) + 0.5)
    return vae


def random_latents(latent_frames: int, batch_size: int = 1, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch_size, latent_frames, SIZE // 32, SIZE // 32, 128, generator=generator)


def random_video(frames: int, seed: int = 2) -> Tensor:
    return torch.rand(1, frames, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def decode_in_chunks(vae: CausalVideoVAE, latents: Tensor, chunks: tuple[int, ...]) -> Tensor:
    state = vae.initial_decoder_state(latents[:, :1], seed=0)
    pictures = []
    for chunk in latents[:, 1:].split(list(chunks), dim=1):
        decoded, state = vae.decode_chunk(chunk, state)
        pictures.append(decoded)
    return torch.cat(pictures, dim=1)


@pytest.mark.parametrize("chunks", [(3, 3), (1, 1, 4), (6,), (2, 1, 3)])
def test_chunked_decoding_equals_the_whole(vae: CausalVideoVAE, chunks: tuple[int, ...]) -> None:
    latents = random_latents(7)
    whole = vae.decode(latents)
    assert whole.shape == (1, 49, 3, SIZE, SIZE)
    assert whole.std() > 0.05
    assert whole.abs().eq(1.0).float().mean() < 0.5
    torch.testing.assert_close(decode_in_chunks(vae, latents, chunks), whole[:, 1:], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("chunks", [(24, 24), (8, 40), (16, 8, 24)])
def test_chunked_encoding_equals_the_whole(vae: CausalVideoVAE, chunks: tuple[int, ...]) -> None:
    video = random_video(49)
    state = vae.initial_encoder_state(video[:, 0])
    latents = [vae.encode_image(video[:, 0])]
    for chunk in video[:, 1:].split(list(chunks), dim=1):
        encoded, state = vae.encode_chunk(chunk, state)
        latents.append(encoded)
    torch.testing.assert_close(torch.cat(latents, dim=1), vae.encode(video), atol=TOLERANCE, rtol=0)


def test_the_future_cannot_change_the_past(vae: CausalVideoVAE) -> None:
    latents, video = random_latents(4), random_video(25)
    other_latents, other_video = latents.clone(), video.clone()
    other_latents[:, 3:] += 1.0
    other_video[:, 17:] *= -1.0
    torch.testing.assert_close(vae.decode(other_latents)[:, :17], vae.decode(latents)[:, :17], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(vae.encode(other_video)[:, :3], vae.encode(video)[:, :3], atol=TOLERANCE, rtol=0)


def test_the_past_reaches_into_the_next_chunk(vae: CausalVideoVAE) -> None:
    chunk = random_latents(3)
    first, _ = vae.decode_chunk(chunk, vae.initial_decoder_state(random_latents(1, seed=5), seed=0))
    second, _ = vae.decode_chunk(chunk, vae.initial_decoder_state(random_latents(1, seed=6), seed=0))
    assert (first - second).abs().max() > 0.01


def test_a_state_can_be_used_twice(vae: CausalVideoVAE) -> None:
    state = vae.initial_decoder_state(random_latents(1), seed=0)
    before = [cache.clone() for cache in state.caches]
    once, next_once = vae.decode_chunk(random_latents(3), state)
    twice, next_twice = vae.decode_chunk(random_latents(3), state)
    assert torch.equal(once, twice)
    assert all(torch.equal(a, b) for a, b in zip(next_once.caches, next_twice.caches, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, state.caches, strict=True))
    assert [cache.shape for cache in next_once.caches] == [cache.shape for cache in state.caches]


def test_sessions_decode_together_as_they_do_alone(vae: CausalVideoVAE) -> None:
    portraits = [random_latents(1, seed=seed) for seed in (3, 4)]
    chunks = [random_latents(3, seed=seed) for seed in (5, 6)]
    states = [vae.initial_decoder_state(portrait, seed=0) for portrait in portraits]
    alone = torch.cat([vae.decode_chunk(chunk, state)[0] for chunk, state in zip(chunks, states, strict=True)])
    together, state = vae.decode_chunk(torch.cat(chunks), DecoderState.join(states))
    torch.testing.assert_close(together, alone, atol=TOLERANCE, rtol=0)
    assert [part.caches[0].shape[0] for part in state.split()] == [1, 1]
    assert torch.equal(state.split()[1].caches[0], state.caches[0][1:])


def test_states_that_do_not_fit_are_refused(vae: CausalVideoVAE) -> None:
    state = vae.initial_decoder_state(random_latents(1), seed=0)
    with pytest.raises(ValueError, match="no decoder states"):
        DecoderState.join([])
    with pytest.raises(ValueError, match="share a batch"):
        DecoderState.join([state, DecoderState(caches=state.caches[:-1], noise=())])
    with pytest.raises(ValueError, match="batch rows"):
        vae.decode_chunk(random_latents(3, batch_size=2), state)
    with pytest.raises(ValueError, match="caches"):
        vae.decode_chunk(random_latents(3), DecoderState(caches=state.caches[:-1], noise=()))
    with pytest.raises(ValueError, match="caches"):
        vae.decode_chunk(random_latents(3), DecoderState(caches=(*state.caches, state.caches[0]), noise=()))
    with pytest.raises(ValueError, match="does not fit"):
        vae.decode_chunk(torch.zeros(1, 3, 1, 2, 128), state)


def test_random_weights_come_from_the_seed_and_make_varied_pictures() -> None:
    latents = random_latents(4)
    pictures = untrained_vae(seed=1).decode(latents)
    assert torch.equal(pictures, untrained_vae(seed=1).decode(latents))
    assert not torch.equal(pictures, untrained_vae(seed=2).decode(latents))
    assert not torch.allclose(pictures, untrained_vae(seed=1).decode(-latents), atol=0.01)
    assert 0.05 < pictures.std() < 0.8
    assert pictures.abs().max() <= 1.0


def test_weights_and_statistics_survive_saving(vae: CausalVideoVAE, tmp_path: Path) -> None:
    vae.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    loaded = CausalVideoVAE.from_pretrained(tmp_path)
    assert torch.equal(loaded.decode(random_latents(2)), vae.decode(random_latents(2)))
    assert torch.equal(loaded.encode(random_video(9)), vae.encode(random_video(9)))
    assert torch.equal(loaded.latents_std, vae.latents_std)


def test_runs_in_bfloat16() -> None:
    vae = untrained_vae()
    exact = vae.decode(random_latents(4))
    vae.bfloat16()
    state = vae.initial_decoder_state(random_latents(1).bfloat16(), seed=0)
    pictures, _ = vae.decode_chunk(random_latents(4)[:, 1:].bfloat16(), state)
    assert pictures.dtype == torch.bfloat16
    torch.testing.assert_close(pictures.float(), exact[:, 1:], atol=0.05, rtol=0)
    assert vae.encode_image(random_video(1)[:, 0].bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "latents",
    [
        torch.zeros(4, 2, 2, 128),
        torch.zeros(1, 4, 2, 2, 64),
        torch.zeros(1, 0, 2, 2, 128),
    ],
)
def test_wrong_latents_are_refused(vae: CausalVideoVAE, latents: Tensor) -> None:
    with pytest.raises(ValueError, match="latents have the shape"):
        vae.decode(latents)
    with pytest.raises(ValueError, match="latents have the shape"):
        vae.initial_decoder_state(latents, seed=0)


def test_a_portrait_is_one_latent_frame(vae: CausalVideoVAE) -> None:
    with pytest.raises(ValueError, match="one latent frame"):
        vae.initial_decoder_state(random_latents(2), seed=0)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 9, 1, 64, 64), "a video has the shape"),
        ((9, 3, 64, 64), "a video has the shape"),
        ((1, 9, 3, 64, 50), "multiples of 32"),
        ((1, 8, 3, 64, 64), "8 k \\+ 1 frames"),
        ((1, 0, 3, 64, 64), "8 k \\+ 1 frames"),
    ],
)
def test_wrong_videos_are_refused(vae: CausalVideoVAE, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vae.encode(torch.zeros(shape))


def test_wrong_pictures_and_chunks_are_refused(vae: CausalVideoVAE) -> None:
    with pytest.raises(ValueError, match="a picture has the shape"):
        vae.encode_image(torch.zeros(3, 64, 64))
    with pytest.raises(ValueError, match="a picture has the shape"):
        vae.initial_encoder_state(torch.zeros(3, 64, 64))
    state = vae.initial_encoder_state(random_video(1)[:, 0])
    for frames in (0, 9):
        with pytest.raises(ValueError, match="multiple of 8 frames"):
            vae.encode_chunk(torch.zeros(1, frames, 3, 64, 64), state)


def test_wrong_statistics_and_settings_are_refused() -> None:
    vae = untrained_vae()
    with pytest.raises(ValueError, match="latent statistics"):
        vae.set_latent_statistics(torch.zeros(128), torch.zeros(128))
    with pytest.raises(ValueError, match="latent statistics"):
        vae.set_latent_statistics(torch.zeros(3), torch.ones(3))
    with pytest.raises(ValueError, match="positive sizes"):
        CausalVideoVAE(width=0)
    with pytest.raises(ValueError, match="two detail_channels"):
        CausalVideoVAE(detail_channels=(8,))


@torch.no_grad()
def test_without_what_blocks_and_detail_add_keys_are_linear() -> None:
    vae = untrained_vae()
    straight = {id(parameter) for parameter in vae.straight_parameters()}
    added = [parameter for parameter in vae.parameters() if id(parameter) not in straight]
    assert straight
    assert added
    for parameter in added:
        parameter.zero_()
    first, second = random_latents(4, seed=1), random_latents(4, seed=2)
    assert not_linear(vae, first, second) < TOLERANCE
    for parameter in added:
        parameter.add_(torch.randn_like(parameter))
    assert not_linear(vae, first, second) > 0.01


def not_linear(vae: CausalVideoVAE, first: Tensor, second: Tensor) -> float:
    """How far the keys of the mean of two latents are from the mean of their keys."""
    mixed, one, other = (vae.reconstruct(each)[:, ::8] for each in ((first + second) / 2, first, second))
    return float((mixed - (one + other) / 2).abs().max())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_every_parameter(vae: CausalVideoVAE, checkpointing: bool) -> None:
    vae.zero_grad()
    if checkpointing:
        vae.enable_gradient_checkpointing()
    vae.train()
    result = vae(random_video(17), torch.Generator().manual_seed(0))
    (result.pictures.square().mean() + 1e-3 * result.kl_divergence()).backward()
    vae.disable_gradient_checkpointing()
    vae.eval()
    assert result.kl_divergence() > 0
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_learns_a_clip_from_random_weights() -> None:
    vae = untrained_vae().train()
    row = torch.linspace(-1, 1, SIZE)
    clip = torch.stack([torch.sin(3 * row + 0.3 * step)[None, :] * row[:, None] for step in range(9)])
    clip = clip[None, :, None].expand(1, 9, 3, SIZE, SIZE).contiguous()
    losses = fit(vae, clip, steps=150)
    assert losses[-1] < 0.5 * losses[0]


def fit(vae: CausalVideoVAE, video: Tensor, steps: int) -> list[float]:
    optimizer = torch.optim.AdamW(vae.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(steps):
        loss = (vae(video, generator).pictures - video).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_mini_is_small_and_decodes_a_chunk_in_few_operations() -> None:
    """Counted on the meta device: what 24 frames of 256 x 256 cost, and what fits into the repository."""
    with torch.device("meta"):
        vae = CausalVideoVAE()
        latents = torch.empty(1, 4, 8, 8, 128)
    state = vae.initial_decoder_state(latents[:, :1], seed=0)
    with FlopCounterMode(display=False) as counter:
        pictures, _ = vae.decode_chunk(latents[:, 1:], state)
    assert pictures.shape == (1, 24, 3, 256, 256)
    assert counter.get_total_flops() < 45e9
    assert sum(parameter.numel() for parameter in vae.parameters()) < 16e6
