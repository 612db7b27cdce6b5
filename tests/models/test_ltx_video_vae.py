"""LTX-Video's VAE: equal to diffusers' in three versions of the layout, and exact in a stream where it is causal."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx import AutoencoderKLLTXVideo
from torch import Tensor

from visavis.models.injected_noise import InjectedNoise
from visavis.models.ltx_video_vae import LTXVideoVAE
from visavis.models.stream_memory import StreamMemory
from visavis.models.video_stream import DecoderState

TOLERANCE = 1e-4
DECODE_TIMESTEP = 0.05
# Relative to the standard deviation of the pictures.
OVERLAP_ERROR_BOUND = 0.5
PAST_ERROR_BOUND = 0.05

# The stock configurations of LTX-Video, with fewer channels and layers.
V090: dict[str, Any] = {
    "latent_channels": 8,
    "block_out_channels": (8, 16, 16, 16),
    "decoder_block_out_channels": (8, 16, 16, 16),
    "layers_per_block": (1, 1, 1, 1, 1),
    "decoder_layers_per_block": (1, 1, 1, 1, 1),
}
V091: dict[str, Any] = V090 | {
    "decoder_block_out_channels": (16, 32, 64),
    "decoder_layers_per_block": (1, 1, 1, 2),
    "decoder_spatio_temporal_scaling": (True, True, True),
    "decoder_inject_noise": (True, True, True, False),
    "upsample_residual": (True, True, True),
    "upsample_factor": (2, 2, 2),
    "timestep_conditioning": True,
}
V095: dict[str, Any] = V091 | {
    "block_out_channels": (8, 16, 32, 64, 64),
    "down_block_types": ("LTXVideo095DownBlock3D",) * 4,
    "layers_per_block": (1, 1, 1, 1, 2),
    "spatio_temporal_scaling": (True, True, True, True),
    "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
    "decoder_inject_noise": (False, False, False, False),
    "spatial_compression_ratio": 32,
    "temporal_compression_ratio": 8,
}
VERSIONS = pytest.mark.parametrize("version", [V090, V091, V095], ids=["0.9.0", "0.9.1", "0.9.5"])
# At full size, as diffusers publishes them.
FULL_091: dict[str, Any] = V091 | {
    "latent_channels": 128,
    "block_out_channels": (128, 256, 512, 512),
    "decoder_block_out_channels": (256, 512, 1024),
    "layers_per_block": (4, 3, 3, 3, 4),
    "decoder_layers_per_block": (5, 6, 7, 8),
}
FULL_095: dict[str, Any] = V095 | {
    "latent_channels": 128,
    "block_out_channels": (128, 256, 512, 1024, 2048),
    "decoder_block_out_channels": (256, 512, 1024),
    "layers_per_block": (4, 6, 6, 2, 2),
    "decoder_layers_per_block": (5, 5, 5, 5),
}


def stock_vae(config: dict[str, Any]) -> AutoencoderKLLTXVideo:
    """diffusers' own, with random weights, statistics and strong noise."""
    torch.manual_seed(0)
    vae: AutoencoderKLLTXVideo = AutoencoderKLLTXVideo(**config).eval()
    for name, parameter in vae.named_parameters():
        if "per_channel_scale" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    vae.latents_mean.normal_()
    vae.latents_std.uniform_(0.5, 1.5)
    return vae


def our_vae(version: dict[str, Any], **settings: Any) -> LTXVideoVAE:
    vae: LTXVideoVAE = LTXVideoVAE(**version, **settings).eval()
    vae.load_state_dict(stock_vae(version).state_dict())
    return vae


def random_latents(latent_frames: int, seed: int = 1) -> Tensor:
    return torch.randn(1, latent_frames, 2, 2, 8, generator=torch.Generator().manual_seed(seed))


def random_video(frames: int) -> Tensor:
    return torch.rand(1, frames, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 2 - 1


def decode_in_chunks(vae: LTXVideoVAE, latents: Tensor, chunks: tuple[int, ...], seed: int = 0) -> Tensor:
    state = vae.initial_decoder_state(latents[:, :1], seed)
    pictures = []
    for chunk in latents[:, 1:].split(list(chunks), dim=1):
        decoded, state = vae.decode_chunk(chunk, state)
        pictures.append(decoded)
    return torch.cat(pictures, dim=1)


@VERSIONS
@pytest.mark.parametrize("encoder_causal", [True, False])
@torch.no_grad()
def test_encodes_as_diffusers_does(version: dict[str, Any], encoder_causal: bool) -> None:
    config = version | {"encoder_causal": encoder_causal}
    stock, ours = stock_vae(config), our_vae(config)
    video = random_video(17)
    posterior = stock.encode(video.transpose(1, 2)).latent_dist
    mean, log_variance = ours.posterior(video, StreamMemory.of_whole_clip())
    torch.testing.assert_close(mean.movedim(-1, 1), posterior.mean, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(log_variance.movedim(-1, 1), posterior.logvar, atol=TOLERANCE, rtol=0)
    normalised = (posterior.mode().movedim(1, -1) - stock.latents_mean) / stock.latents_std
    torch.testing.assert_close(ours.encode(video), normalised, atol=TOLERANCE, rtol=0)


@VERSIONS
@pytest.mark.parametrize("decoder_causal", [True, False])
@torch.no_grad()
def test_decodes_as_diffusers_does(version: dict[str, Any], decoder_causal: bool) -> None:
    """With the same noise: diffusers draws it from torch's global generator."""
    config = version | {"decoder_causal": decoder_causal}
    stock, ours = stock_vae(config), our_vae(config, decode_noise_scale=0.0)
    latents = random_latents(3)
    timestep = torch.tensor([DECODE_TIMESTEP]) if version.get("timestep_conditioning") else None
    torch.manual_seed(5)
    pictures = stock.decode((latents * stock.latents_std + stock.latents_mean).movedim(-1, 1), timestep).sample
    assert pictures.std() > 0.1
    clamped = pictures.transpose(1, 2).clamp(-1.0, 1.0)
    torch.testing.assert_close(ours.decode(latents, seed=5), clamped, atol=TOLERANCE, rtol=0)
    unclamped = ours.decoder(
        ours.denormalise(latents).movedim(-1, 1), timestep, StreamMemory.of_whole_clip(), InjectedNoise(seed=5)
    )
    torch.testing.assert_close(unclamped, pictures, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("config", [{}, FULL_091, FULL_095], ids=["0.9.0", "0.9.1", "0.9.5"])
def test_full_size_has_the_names_and_shapes_of_diffusers(config: dict[str, Any]) -> None:
    with torch.device("meta"):
        stock, ours = AutoencoderKLLTXVideo(**config), LTXVideoVAE(**config)
    shapes = {name: tensor.shape for name, tensor in stock.state_dict().items()}
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == shapes
    assert (ours.spatial_compression_ratio, ours.temporal_compression_ratio) == (32, 8)


@VERSIONS
def test_a_stock_folder_loads(version: dict[str, Any], tmp_path: Path) -> None:
    stock = stock_vae(version)
    stock.save_pretrained(tmp_path)
    ours = LTXVideoVAE.from_pretrained(tmp_path)
    assert all(torch.equal(tensor, stock.state_dict()[name]) for name, tensor in ours.state_dict().items())
    assert torch.equal(ours.encode(random_video(9)), our_vae(version).encode(random_video(9)))
    causal = LTXVideoVAE.from_pretrained(tmp_path, decoder_causal=True)
    assert causal.decoder_causal


@VERSIONS
@pytest.mark.parametrize("chunks", [(3, 3), (1, 4, 1)])
def test_a_causal_decoder_gives_the_whole_in_chunks(version: dict[str, Any], chunks: tuple[int, ...]) -> None:
    vae = our_vae(version, decoder_causal=True)
    latents = random_latents(7)
    whole = vae.decode(latents, seed=3)
    assert whole.shape == (1, 49, 3, 64, 64)
    torch.testing.assert_close(decode_in_chunks(vae, latents, chunks, seed=3), whole[:, 1:], atol=TOLERANCE, rtol=0)


@VERSIONS
def test_the_encoder_gives_the_whole_in_chunks(version: dict[str, Any]) -> None:
    vae = our_vae(version)
    video = random_video(49)
    state = vae.initial_encoder_state(video[:, 0])
    latents = [vae.encode_image(video[:, 0])]
    for chunk in video[:, 1:].split([24, 8, 16], dim=1):
        encoded, state = vae.encode_chunk(chunk, state)
        latents.append(encoded)
    torch.testing.assert_close(torch.cat(latents, dim=1), vae.encode(video), atol=TOLERANCE, rtol=0)


def test_the_future_cannot_change_the_past_of_a_causal_decoder() -> None:
    vae = our_vae(V091, decoder_causal=True)
    latents = random_latents(4)
    other = latents.clone()
    other[:, 3:] += 1.0
    torch.testing.assert_close(vae.decode(other)[:, :17], vae.decode(latents)[:, :17], atol=TOLERANCE, rtol=0)


@VERSIONS
def test_overlapped_decoding_of_stock_weights_is_a_rough_approximation(version: dict[str, Any]) -> None:
    """Bounds the error against decoding the whole clip, on latents that change slowly, as those of a face do."""
    vae = our_vae(version)
    steps = torch.linspace(0, 1, 7)[None, :, None, None, None]
    latents = random_latents(1) * (1 - steps) + random_latents(1, seed=9) * steps
    whole = vae.decode(latents)[:, 1:]
    chunked = decode_in_chunks(vae, latents, (3, 3))
    assert chunked.shape == whole.shape
    error = (chunked - whole).square().mean().sqrt() / whole.std()
    assert 0 < error < OVERLAP_ERROR_BOUND
    # The last chunk ends with the clip and lacks no future: what it lacks of the past hardly matters.
    past_error = (chunked[:, 24:] - whole[:, 24:]).square().mean().sqrt() / whole.std()
    assert past_error < PAST_ERROR_BOUND


def test_overlap_grows_to_its_limit_and_stays_there() -> None:
    vae = our_vae(V090, overlap_latent_frames=3)
    state = vae.initial_decoder_state(random_latents(1), seed=0)
    lengths = []
    for _ in range(3):
        lengths.append(state.caches[0].shape[1])
        _, state = vae.decode_chunk(random_latents(3), state)
    assert lengths == [1, 3, 3]


@pytest.mark.parametrize("decoder_causal", [True, False])
def test_a_state_can_be_used_twice(decoder_causal: bool) -> None:
    vae = our_vae(V091, decoder_causal=decoder_causal)
    state = vae.initial_decoder_state(random_latents(1), seed=0)
    before = [tensor.clone() for tensor in state.caches + state.noise]
    once, _ = vae.decode_chunk(random_latents(3), state)
    twice, _ = vae.decode_chunk(random_latents(3), state)
    assert torch.equal(once, twice)
    assert all(torch.equal(a, b) for a, b in zip(before, state.caches + state.noise, strict=True))


@pytest.mark.parametrize("decoder_causal", [True, False])
def test_noise_comes_from_the_session_seed_alone_and_stays(decoder_causal: bool) -> None:
    vae = our_vae(V091, decoder_causal=decoder_causal)
    state = vae.initial_decoder_state(random_latents(1), seed=7)
    torch.manual_seed(99)
    again = vae.initial_decoder_state(random_latents(1), seed=7)
    other = vae.initial_decoder_state(random_latents(1), seed=8)
    assert len(state.noise) > 1
    assert all(torch.equal(a, b) for a, b in zip(state.noise, again.noise, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(state.noise, other.noise, strict=True))
    _, later = vae.decode_chunk(random_latents(3), state)
    assert all(torch.equal(a, b) for a, b in zip(state.noise, later.noise, strict=True))
    pictures = [vae.decode_chunk(random_latents(3), each)[0] for each in (state, again, other)]
    assert torch.equal(pictures[0], pictures[1])
    assert not torch.allclose(pictures[0], pictures[2], atol=0.01)


@pytest.mark.parametrize("decoder_causal", [True, False])
def test_sessions_decode_together_as_they_do_alone(decoder_causal: bool) -> None:
    vae = our_vae(V091, decoder_causal=decoder_causal)
    states = [vae.initial_decoder_state(random_latents(1, seed), seed=seed) for seed in (3, 4)]
    chunks = [random_latents(3, seed) for seed in (5, 6)]
    alone = torch.cat([vae.decode_chunk(chunk, state)[0] for chunk, state in zip(chunks, states, strict=True)])
    together, state = vae.decode_chunk(torch.cat(chunks), DecoderState.join(states))
    torch.testing.assert_close(together, alone, atol=TOLERANCE, rtol=0)
    assert len(state.split()) == 2


@pytest.mark.parametrize("decoder_causal", [True, False])
def test_runs_in_bfloat16(decoder_causal: bool) -> None:
    vae = our_vae(V091, decoder_causal=decoder_causal).bfloat16()
    state = vae.initial_decoder_state(random_latents(1).bfloat16(), seed=0)
    pictures, state = vae.decode_chunk(random_latents(3).bfloat16(), state)
    assert pictures.dtype == torch.bfloat16
    assert pictures.isfinite().all()
    assert all(tensor.dtype == torch.bfloat16 for tensor in state.caches + state.noise)
    assert vae.encode_image(random_video(1)[:, 0].bfloat16()).dtype == torch.bfloat16


def test_random_weights_come_from_the_seed_and_make_varied_pictures() -> None:
    def untrained(seed: int) -> LTXVideoVAE:
        torch.manual_seed(seed)
        vae: LTXVideoVAE = LTXVideoVAE(**V095, decoder_causal=True).eval()
        return vae

    pictures = untrained(1).decode(random_latents(4))
    assert torch.equal(pictures, untrained(1).decode(random_latents(4)))
    assert not torch.allclose(pictures, untrained(1).decode(random_latents(4, seed=2)), atol=0.01)
    assert 0.05 < pictures.std() < 0.9


def test_saves_and_loads_with_its_own_settings(tmp_path: Path) -> None:
    vae = our_vae(V091, decoder_causal=True, decode_noise_scale=0.1, overlap_latent_frames=2)
    vae.save_pretrained(tmp_path)
    loaded = LTXVideoVAE.from_pretrained(tmp_path)
    assert loaded.decoder_causal
    assert torch.equal(loaded.decode(random_latents(2), seed=1), vae.decode(random_latents(2), seed=1))


def test_trains_through_the_decoder() -> None:
    vae = our_vae(V095, decoder_causal=True).train()
    result = vae(random_video(9))
    (result.pictures.square().mean() + result.kl_divergence()).backward()
    assert all(p.grad is not None for p in vae.encoder.parameters())
    assert all(p.grad is not None for p in vae.decoder.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch_size_t": 2}, "patch_size_t"),
        ({"scaling_factor": 0.5}, "scaling_factor"),
        ({"overlap_latent_frames": 0}, "overlap_latent_frames"),
        ({"down_block_types": ("LTXVideoDownBlock3D", "LTXVideo095DownBlock3D")}, "down_block_types"),
        ({"decoder_inject_noise": (True,) * 5}, "must keep its width"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LTXVideoVAE(**(V090 | settings))


def test_an_unknown_downsampling_is_refused() -> None:
    with pytest.raises(ValueError, match="downsample_type"):
        LTXVideoVAE(**(V095 | {"downsample_type": ("spatial", "temporal", "sideways", "conv")}))


def test_what_does_not_fit_is_refused() -> None:
    vae, overlapping = our_vae(V091, decoder_causal=True), our_vae(V091)
    state, overlap = (each.initial_decoder_state(random_latents(1), seed=0) for each in (vae, overlapping))
    with pytest.raises(ValueError, match="latents have the shape"):
        vae.decode(torch.zeros(1, 3, 2, 2, 128))
    with pytest.raises(ValueError, match="multiples of 32"):
        vae.encode(torch.zeros(1, 9, 3, 48, 64))
    with pytest.raises(ValueError, match="another network"):
        overlapping.decode_chunk(random_latents(3), state)
    with pytest.raises(ValueError, match="does not fit"):
        vae.decode_chunk(random_latents(3), DecoderState(caches=overlap.caches, noise=state.noise))
    with pytest.raises(ValueError, match="noise was drawn"):
        vae.decode_chunk(random_latents(3), DecoderState(caches=state.caches, noise=state.noise[1:]))
    with pytest.raises(ValueError, match="timestep"):
        vae.decoder(random_latents(3).movedim(-1, 1), None, StreamMemory.of_whole_clip(), InjectedNoise(seed=0))
    blind = LTXVideoVAE(**V090, encoder_causal=False)
    with pytest.raises(ValueError, match="chunk by chunk"):
        blind.initial_encoder_state(torch.zeros(1, 3, 64, 64))
