"""The video VAE of the presets `mini` and `tiny`: 32 x 32 x 8 pixels a token, 128 channels, causal on both sides.

The principle is LTX-Video's (REST, section 3.2); the network is our own and made for two CPU cores: most of the work
is done at few time steps and low resolution, and each temporal stage comes as late as its spatial partner allows.

Legend: B batch, T latent frames, F video frames, H W rows and columns, C channels.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from visavis.models.stream_memory import StreamMemory
from visavis.models.video_autoencoder import LOG_VARIANCE_RANGE, VideoAutoencoder
from visavis.models.video_stream import DecoderState
from visavis.models.video_vae_blocks import (
    SpatialBlock,
    SpatialBlocks,
    SpatialUpsampling,
    TemporalBlock,
    TemporalDownsampling,
    TemporalUpsampling,
    frames_of,
    keep_scale,
    steps_of,
)

PATCH = 4
SPATIAL_RATIO = 32
TEMPORAL_RATIO = 8
# An untrained posterior has a standard deviation of 0.05: training starts as a plain autoencoder.
INITIAL_LOG_VARIANCE = -6.0


class Stage(nn.Module):
    """Blocks at one resolution: the spatial ones frame by frame, then one over time."""

    def __init__(self, channels: int, spatial_blocks: int, norm_groups: int) -> None:
        super().__init__()
        self.spatial = SpatialBlocks(channels, spatial_blocks, norm_groups)
        self.temporal = TemporalBlock(channels, norm_groups)

    def forward(self, steps_BTHWC: Tensor, memory: StreamMemory) -> Tensor:
        mixed = steps_of(self.spatial(frames_of(steps_BTHWC)), steps_BTHWC.shape[0])
        updated: Tensor = self.temporal(mixed, memory)
        return updated


class VideoEncoder(nn.Module):
    """Pictures [B, F, 3, H, W] -> moments [B, T, H/32, W/32, 2 C]: mean, then log-variance."""

    def __init__(self, widths: Sequence[int], blocks: Sequence[int], latent_channels: int, norm_groups: int) -> None:
        super().__init__()
        self.conv_in = keep_scale(nn.Conv2d(3 * PATCH**2, widths[0], 3, padding=1))
        self.first_spatial = SpatialBlocks(widths[0], blocks[0], norm_groups)
        self.downsampling = nn.ModuleList(
            keep_scale(nn.Conv2d(fine, coarse, 3, stride=2, padding=1)) for fine, coarse in pairwise(widths)
        )
        self.stages = nn.ModuleList(
            Stage(width, count, norm_groups) for width, count in zip(widths[1:], blocks[1:], strict=True)
        )
        self.temporal_downsampling = nn.ModuleList(TemporalDownsampling(width) for width in widths[1:])
        self.conv_out = keep_scale(nn.Conv2d(widths[-1], 2 * latent_channels, 1))
        assert self.conv_out.bias is not None
        with torch.no_grad():
            self.conv_out.weight[latent_channels:] = 0.0
            self.conv_out.bias[latent_channels:] = INITIAL_LOG_VARIANCE

    def forward(self, video_BF3HW: Tensor, memory: StreamMemory) -> Tensor:
        batch_size = video_BF3HW.shape[0]
        patches = F.pixel_unshuffle(video_BF3HW.flatten(0, 1), PATCH).contiguous(memory_format=torch.channels_last)
        steps = steps_of(self.first_spatial(self.conv_in(patches)), batch_size)
        for downsampling, stage, halving in zip(
            self.downsampling, self.stages, self.temporal_downsampling, strict=True
        ):
            steps = steps_of(downsampling(frames_of(steps)), batch_size)
            steps = halving(stage(steps, memory), memory)
        return steps_of(self.conv_out(frames_of(steps)), batch_size)


class VideoDecoder(nn.Module):
    """Latents [B, T, H/32, W/32, C] -> pictures [B, F, 3, H, W], not clamped."""

    def __init__(self, widths: Sequence[int], blocks: Sequence[int], latent_channels: int, norm_groups: int) -> None:
        super().__init__()
        finest, coarse_to_fine = widths[0], list(reversed(widths))
        self.conv_in = keep_scale(nn.Conv2d(latent_channels, coarse_to_fine[0], 1))
        self.stages = nn.ModuleList(
            Stage(width, count, norm_groups)
            for width, count in zip(coarse_to_fine[:-1], list(reversed(blocks))[:-1], strict=True)
        )
        self.temporal_upsampling = nn.ModuleList(TemporalUpsampling(width) for width in coarse_to_fine[:-1])
        self.upsampling = nn.ModuleList(SpatialUpsampling(coarse, fine) for coarse, fine in pairwise(coarse_to_fine))
        self.last_spatial = SpatialBlocks(finest, blocks[0], norm_groups)
        self.conv_hidden = keep_scale(nn.Conv2d(finest, 3 * PATCH**2, 3, padding=1))
        self.conv_out = nn.Conv2d(3 * PATCH**2, 3 * PATCH**2, 3, padding=1)
        # A straight way from latents to pixels, which can start as the best linear one; the rest adds to it.
        self.conv_straight = nn.Conv2d(finest, 3 * PATCH**2, 1)

    def forward(self, latents_BTHWC: Tensor, memory: StreamMemory) -> Tensor:
        batch_size = latents_BTHWC.shape[0]
        steps = steps_of(self.conv_in(frames_of(latents_BTHWC)), batch_size)
        for stage, doubling, upsampling in zip(self.stages, self.temporal_upsampling, self.upsampling, strict=True):
            steps = doubling(stage(steps, memory), memory)
            steps = steps_of(upsampling(frames_of(steps)), batch_size)
        frames = self.last_spatial(frames_of(steps))
        # No normalisation before the output: it takes contrast away (after 120 steps 10.2 dB with it, 13.6 without).
        patches = self.conv_straight(frames) + self.conv_out(F.silu(self.conv_hidden(F.silu(frames))))
        pictures: Tensor = F.pixel_shuffle(patches, PATCH).unflatten(0, (batch_size, -1))
        return pictures


class CausalVideoVAE(VideoAutoencoder):
    """A KL-regularised video autoencoder whose chunked decoding (and encoding) equals that of the whole clip.

    Any picture whose sides are multiples of 32 will do. `encoder_widths`, `encoder_blocks` and their decoder partners
    run from the finest resolution (1/4 of the picture) to the coarsest (1/32); a decoder's block count may be 0 at the
    finest one, which its two closing convolutions serve already.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        encoder_widths: Sequence[int] = (64, 128, 256, 256),
        encoder_blocks: Sequence[int] = (1, 2, 2, 2),
        decoder_widths: Sequence[int] = (64, 128, 256, 256),
        decoder_blocks: Sequence[int] = (0, 2, 2, 3),
        latent_channels: int = 128,
        norm_groups: int = 8,
    ) -> None:
        super().__init__(latent_channels, SPATIAL_RATIO, TEMPORAL_RATIO)
        for name, widths, blocks in (
            ("encoder", encoder_widths, encoder_blocks),
            ("decoder", decoder_widths, decoder_blocks),
        ):
            if len(widths) != 4 or len(blocks) != 4 or any(width <= 0 or width % norm_groups for width in widths):
                raise ValueError(f"{name}: four widths (multiples of {norm_groups}) and four block counts are needed")
        self.encoder = VideoEncoder(encoder_widths, encoder_blocks, latent_channels, norm_groups)
        self.decoder = VideoDecoder(decoder_widths, decoder_blocks, latent_channels, norm_groups)

    def posterior(self, video_BF3HW: Tensor, memory: StreamMemory) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(video_BF3HW, memory).chunk(2, dim=-1)
        return mean, log_variance.clamp(*LOG_VARIANCE_RANGE)

    def reconstruct(self, latents_BTHWC: Tensor) -> Tensor:
        pictures: Tensor = self.decoder(latents_BTHWC, StreamMemory.of_whole_clip())
        return pictures

    @torch.no_grad()
    def decode(self, latents_BTHWC: Tensor, seed: int = 0) -> Tensor:
        """As `VideoAutoencoder.decode`; no noise is injected, so `seed` changes nothing."""
        self._check_latents(latents_BTHWC)
        return self.reconstruct(self.denormalise(latents_BTHWC)).clamp(-1.0, 1.0)

    @torch.no_grad()
    def initial_decoder_state(self, portrait_latent_BTHWC: Tensor, seed: int) -> DecoderState:
        """As `VideoAutoencoder.initial_decoder_state`; no noise is injected, so `seed` changes nothing."""
        self._check_portrait(portrait_latent_BTHWC)
        memory = StreamMemory.at_first_frame()
        self.decoder(self.denormalise(portrait_latent_BTHWC), memory)
        return DecoderState(caches=memory.caches(), noise=())

    @torch.no_grad()
    def decode_chunk(self, latents_BTHWC: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        self._check_fits_state(latents_BTHWC, state)
        memory = StreamMemory.after(state.caches)
        pictures: Tensor = self.decoder(self.denormalise(latents_BTHWC), memory)
        return pictures.clamp(-1.0, 1.0), DecoderState(caches=memory.caches(), noise=())

    def temporal_parameters(self) -> Iterator[nn.Parameter]:
        """What mixes time steps; held still while single pictures are learnt ("space first, then time")."""
        for module in self.modules():
            if isinstance(module, TemporalBlock | TemporalDownsampling | TemporalUpsampling):
                yield from module.parameters()

    def straight_parameters(self) -> Iterator[nn.Parameter]:
        """The way through which a linear autoencoder goes: all that is in no residual block."""
        decoder = self.decoder
        blocks = [module for module in self.modules() if isinstance(module, SpatialBlock | TemporalBlock)]
        added = [*blocks, decoder.conv_hidden, decoder.conv_out]
        residual = {id(parameter) for module in added for parameter in module.parameters()}
        return (parameter for parameter in self.parameters() if id(parameter) not in residual)

    def spatial_parameters(self) -> Iterator[nn.Parameter]:
        """All parameters but the temporal ones."""
        temporal = {id(parameter) for parameter in self.temporal_parameters()}
        return (parameter for parameter in self.parameters() if id(parameter) not in temporal)
