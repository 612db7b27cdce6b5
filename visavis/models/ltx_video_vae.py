"""The video VAE of the preset `base`: LTX-Video's layout, 0.9.0 to 0.9.5 by configuration (arXiv 2501.00103).

Parameter names, shapes and configuration keys are those of diffusers' `AutoencoderKLLTXVideo`; `from_pretrained` of a
stock folder loads.

Legend: B batch, C channels, T latent frames, F video frames, H rows, W columns.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from visavis.models.causal_convolution import VideoConvolution
from visavis.models.injected_noise import InjectedNoise
from visavis.models.ltx_video_blocks import (
    BlockOptions,
    DownBlock,
    MidBlock,
    UpBlock,
    channel_norm,
    embed_timestep,
    timestep_embedder,
)
from visavis.models.stream_memory import StreamMemory
from visavis.models.video_autoencoder import LOG_VARIANCE_RANGE, VideoAutoencoder
from visavis.models.video_stream import DecoderState

DOWN_BLOCK_090 = "LTXVideoDownBlock3D"
DOWN_BLOCK_095 = "LTXVideo095DownBlock3D"


class LTXEncoder(nn.Module):
    """Pictures [B, 3, F, H, W] -> moments [B, C + 1, T, H', W']: the means, then one log-variance for all channels."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        block_out_channels: Sequence[int],
        down_block_types: Sequence[str],
        spatio_temporal_scaling: Sequence[bool],
        layers_per_block: Sequence[int],
        downsample_type: Sequence[str],
        patch_size: int,
        options: BlockOptions,
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        is_095 = _is_095(down_block_types)
        widths = [*block_out_channels] if is_095 else [*block_out_channels, block_out_channels[-1]]
        self.conv_in = VideoConvolution(in_channels * patch_size**2, widths[0], causal=options.causal)
        self.down_blocks = nn.ModuleList(
            DownBlock(
                widths[index],
                widths[index + 1],
                layers_per_block[index],
                options,
                downsample=spatio_temporal_scaling[index],
                downsample_type=downsample_type[index] if is_095 else "conv",
                widens_last=not is_095,
            )
            for index in range(len(widths) - 1)
        )
        self.mid_block = MidBlock(widths[-1], layers_per_block[-1], options)
        self.conv_out = VideoConvolution(widths[-1], out_channels + 1, causal=options.causal)

    def forward(self, video_BCFHW: Tensor, memory: StreamMemory) -> Tensor:
        no_noise = InjectedNoise(seed=0)
        hidden = self.conv_in(self._patches(video_BCFHW), memory)
        for block in self.down_blocks:
            hidden = block(hidden, memory, no_noise)
        hidden = self.mid_block(hidden, None, memory, no_noise)
        moments: Tensor = self.conv_out(F.silu(channel_norm(hidden)), memory)
        return moments

    def _patches(self, video_BCFHW: Tensor) -> Tensor:
        split: Tensor = video_BCFHW.unflatten(4, (-1, self.patch_size)).unflatten(3, (-1, self.patch_size))
        # LTX-Video puts a patch's columns before its rows.
        return split.permute(0, 1, 6, 4, 2, 3, 5).flatten(1, 3)


class LTXDecoder(nn.Module):
    """Latents [B, C, T, H, W] -> pictures [B, 3, F, H', W'], not clamped."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        block_out_channels: Sequence[int],
        spatio_temporal_scaling: Sequence[bool],
        layers_per_block: Sequence[int],
        inject_noise: Sequence[bool],
        upsample_residual: Sequence[bool],
        upsample_factor: Sequence[int],
        patch_size: int,
        *,
        causal: bool,
        norm_epsilon: float,
        timestep_conditioning: bool,
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        widths = list(reversed(block_out_channels))
        factors = list(reversed(upsample_factor))
        layers = list(reversed(layers_per_block))
        options = [
            BlockOptions(causal, norm_epsilon, inject_noise=injects, timestep_conditioning=timestep_conditioning)
            for injects in reversed(inject_noise)
        ]
        self.conv_in = VideoConvolution(in_channels, widths[0], causal=causal)
        self.mid_block = MidBlock(widths[0], layers[0], options[0])
        self.up_blocks = nn.ModuleList()
        width = widths[0]
        for index, (scales, residual) in enumerate(
            zip(reversed(spatio_temporal_scaling), reversed(upsample_residual), strict=True)
        ):
            block_in, block_out = width // factors[index], widths[index] // factors[index]
            self.up_blocks.append(
                UpBlock(
                    block_in,
                    block_out,
                    layers[index + 1],
                    options[index + 1],
                    upsample=scales,
                    upsample_residual=residual,
                    upscale_factor=factors[index],
                )
            )
            width = block_out
        self.conv_out = VideoConvolution(width, out_channels * patch_size**2, causal=causal)
        self.time_embedder = timestep_embedder(2 * width) if timestep_conditioning else None
        self.scale_shift_table = nn.Parameter(torch.randn(2, width) / width**0.5) if timestep_conditioning else None
        self.timestep_scale_multiplier = nn.Parameter(torch.tensor(1000.0)) if timestep_conditioning else None

    def forward(
        self, latents_BCTHW: Tensor, timestep_B: Tensor | None, memory: StreamMemory, noise: InjectedNoise
    ) -> Tensor:
        if self.timestep_scale_multiplier is not None:
            if timestep_B is None:
                raise ValueError("this decoder is conditioned on a timestep")
            timestep_B = timestep_B * self.timestep_scale_multiplier
        hidden = self.mid_block(self.conv_in(latents_BCTHW, memory), timestep_B, memory, noise)
        for block in self.up_blocks:
            hidden = block(hidden, timestep_B, memory, noise)
        hidden = self._modulated(channel_norm(hidden), timestep_B)
        return self._pictures(self.conv_out(F.silu(hidden), memory))

    def _modulated(self, hidden_BCTHW: Tensor, timestep_B: Tensor | None) -> Tensor:
        if self.time_embedder is None or self.scale_shift_table is None:
            return hidden_BCTHW
        assert timestep_B is not None
        conditioning = embed_timestep(self.time_embedder, timestep_B, hidden_BCTHW, parts=2)
        shift, scale = (conditioning + self.scale_shift_table[None, ..., None, None, None]).unbind(1)
        return hidden_BCTHW * (1 + scale) + shift

    def _pictures(self, patches_BCTHW: Tensor) -> Tensor:
        split: Tensor = patches_BCTHW.unflatten(1, (-1, self.patch_size, self.patch_size))
        return split.permute(0, 1, 4, 5, 3, 6, 2).flatten(5, 6).flatten(3, 4)


class LTXVideoVAE(VideoAutoencoder):
    """LTX-Video's VAE with a decoder that can stream.

    With `decoder_causal=True` chunked decoding equals that of the whole clip. Stock weights are not causal: one frame
    sees 22 to 30 latent frames of future, so chunked decoding is an approximation. It then decodes each chunk
    together with the last `overlap_latent_frames` latent frames and keeps the chunk's pictures; what lies in the
    future counts as a repetition of the last latent frame's features.

    `decode_timestep` and `decode_noise_scale` are the values of diffusers' `LTXPipeline` arguments of the same names,
    used by timestep-conditioned decoders. The noise, of the latents and of the injecting blocks, is drawn once per
    session from its seed and is the same at every time step.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        latent_channels: int = 128,
        block_out_channels: Sequence[int] = (128, 256, 512, 512),
        down_block_types: Sequence[str] = (DOWN_BLOCK_090,) * 4,
        decoder_block_out_channels: Sequence[int] = (128, 256, 512, 512),
        layers_per_block: Sequence[int] = (4, 3, 3, 3, 4),
        decoder_layers_per_block: Sequence[int] = (4, 3, 3, 3, 4),
        spatio_temporal_scaling: Sequence[bool] = (True, True, True, False),
        decoder_spatio_temporal_scaling: Sequence[bool] = (True, True, True, False),
        decoder_inject_noise: Sequence[bool] = (False, False, False, False, False),
        downsample_type: Sequence[str] = ("conv", "conv", "conv", "conv"),
        upsample_residual: Sequence[bool] = (False, False, False, False),
        upsample_factor: Sequence[int] = (1, 1, 1, 1),
        timestep_conditioning: bool = False,
        patch_size: int = 4,
        patch_size_t: int = 1,
        resnet_norm_eps: float = 1e-6,
        scaling_factor: float = 1.0,
        encoder_causal: bool = True,
        decoder_causal: bool = False,
        spatial_compression_ratio: int | None = None,
        temporal_compression_ratio: int | None = None,
        decode_timestep: float = 0.05,
        decode_noise_scale: float = 0.025,
        overlap_latent_frames: int = 3,
    ) -> None:
        scalings = len(decoder_spatio_temporal_scaling)
        doublings = sum(bool(scales) for scales in decoder_spatio_temporal_scaling)
        super().__init__(
            latent_channels,
            spatial_compression_ratio or patch_size * 2**doublings,
            temporal_compression_ratio or 2**doublings,
        )
        if patch_size_t != 1:
            raise ValueError(f"only patch_size_t=1 is known in LTX-Video's layout, got {patch_size_t}")
        if scaling_factor != 1.0:
            raise ValueError(f"LTX-Video normalises per channel; scaling_factor must be 1, got {scaling_factor}")
        if overlap_latent_frames < 1:
            raise ValueError(f"overlap_latent_frames must be at least 1, got {overlap_latent_frames}")
        encoder_options = BlockOptions(encoder_causal, resnet_norm_eps, inject_noise=False, timestep_conditioning=False)
        self.encoder = LTXEncoder(
            in_channels,
            latent_channels,
            block_out_channels,
            down_block_types,
            spatio_temporal_scaling,
            layers_per_block,
            downsample_type,
            patch_size,
            encoder_options,
        )
        self.decoder = LTXDecoder(
            latent_channels,
            out_channels,
            decoder_block_out_channels,
            decoder_spatio_temporal_scaling,
            decoder_layers_per_block,
            # Stock configurations of 0.9.0 carry the defaults' surplus entries; only the first ones count.
            decoder_inject_noise,
            upsample_residual[:scalings],
            upsample_factor[:scalings],
            patch_size,
            causal=decoder_causal,
            norm_epsilon=resnet_norm_eps,
            timestep_conditioning=timestep_conditioning,
        )
        self.decoder_causal = decoder_causal
        self.encoder_causal = encoder_causal
        self.decode_timestep = decode_timestep
        self.decode_noise_scale = decode_noise_scale
        self.timestep_conditioning = timestep_conditioning
        self.overlap_latent_frames = overlap_latent_frames

    def posterior(self, video_BF3HW: Tensor, memory: StreamMemory) -> tuple[Tensor, Tensor]:
        moments = self.encoder(video_BF3HW.transpose(1, 2), memory).movedim(1, -1)
        mean, log_variance = moments[..., :-1], moments[..., -1:]
        return mean, log_variance.clamp(*LOG_VARIANCE_RANGE).expand_as(mean)

    def reconstruct(self, latents_BTHWC: Tensor) -> Tensor:
        return self._pictures(latents_BTHWC, StreamMemory.of_whole_clip(), InjectedNoise(seed=0))

    @torch.no_grad()
    def decode(self, latents_BTHWC: Tensor, seed: int = 0) -> Tensor:
        self._check_latents(latents_BTHWC)
        noise = InjectedNoise(seed=seed)
        return self._pictures(
            self.denormalise(latents_BTHWC), StreamMemory.of_whole_clip(), noise, self._latent_noise_scale
        ).clamp(-1.0, 1.0)

    @torch.no_grad()
    def initial_decoder_state(self, portrait_latent_BTHWC: Tensor, seed: int) -> DecoderState:
        self._check_portrait(portrait_latent_BTHWC)
        memory, noise = StreamMemory.at_first_frame(), InjectedNoise(seed=seed)
        latents = self.denormalise(portrait_latent_BTHWC)
        self._pictures(latents, memory, noise, self._latent_noise_scale)
        return DecoderState(
            caches=memory.caches() if self.decoder_causal else (latents.clone(),),
            noise=noise.used(),
        )

    @torch.no_grad()
    def decode_chunk(self, latents_BTHWC: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        self._check_fits_state(latents_BTHWC, state)
        latents = self.denormalise(latents_BTHWC)
        if not self.decoder_causal:
            return self._decode_overlapping_chunk(latents, state)
        memory, noise = StreamMemory.after(state.caches), InjectedNoise.replayed(state.noise)
        pictures = self._pictures(latents, memory, noise, self._latent_noise_scale)
        return pictures.clamp(-1.0, 1.0), DecoderState(caches=memory.caches(), noise=state.noise)

    def _decode_overlapping_chunk(self, latents_BTHWC: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        if len(state.caches) != 1 or state.caches[0].shape[2:] != latents_BTHWC.shape[2:]:
            raise ValueError("the state belongs to another network or picture size")
        window = torch.cat([state.caches[0], latents_BTHWC], dim=1)
        pictures = self._pictures(
            window, StreamMemory.of_whole_clip(), InjectedNoise.replayed(state.noise), self._latent_noise_scale
        )
        frames = latents_BTHWC.shape[1] * self.temporal_compression_ratio
        overlap = window[:, -self.overlap_latent_frames :].clone()
        return pictures[:, -frames:].clamp(-1.0, 1.0), DecoderState(caches=(overlap,), noise=state.noise)

    @property
    def _latent_noise_scale(self) -> float:
        return self.decode_noise_scale if self.timestep_conditioning else 0.0

    def _pictures(
        self, latents_BTHWC: Tensor, memory: StreamMemory, noise: InjectedNoise, latent_noise_scale: float = 0.0
    ) -> Tensor:
        latents = latents_BTHWC.movedim(-1, 1)
        if latent_noise_scale > 0.0:
            shape = (latents.shape[1], *latents.shape[3:])
            drawn = noise.next(shape, latents).unsqueeze(2)
            latents = (1.0 - latent_noise_scale) * latents + latent_noise_scale * drawn
        timestep = (
            torch.full((latents.shape[0],), self.decode_timestep, device=latents.device)
            if self.timestep_conditioning
            else None
        )
        pictures: Tensor = self.decoder(latents, timestep, memory, noise)
        return pictures.transpose(1, 2)

    def _check_streamed_encoder(self) -> None:
        if not self.encoder_causal:
            raise ValueError("an encoder that is not causal cannot work chunk by chunk")


def _is_095(down_block_types: Sequence[str]) -> bool:
    kinds = set(down_block_types)
    if kinds == {DOWN_BLOCK_095}:
        return True
    if kinds == {DOWN_BLOCK_090}:
        return False
    raise ValueError(f"down_block_types are all {DOWN_BLOCK_090} or all {DOWN_BLOCK_095}, got {sorted(kinds)}")
