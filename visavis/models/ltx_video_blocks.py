"""The blocks of LTX-Video's VAE (arXiv 2501.00103), 0.9.0 to 0.9.5, able to run chunk by chunk where they are causal.

Module and parameter names are those of diffusers' `AutoencoderKLLTXVideo`, so stock weights load.

Legend: B batch, C channels, T time steps, H rows, W columns. `conditioning` is the embedded decoding timestep.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import PixArtAlphaCombinedTimestepSizeEmbeddings
from torch import Tensor, nn

from visavis.models.causal_convolution import VideoConvolution
from visavis.models.injected_noise import InjectedNoise
from visavis.models.stream_memory import StreamMemory

NORM_EPSILON = 1e-8


@dataclass(frozen=True, slots=True)
class BlockOptions:
    """What distinguishes the blocks of an encoder, and of the decoders of different LTX-Video versions."""

    causal: bool
    norm_epsilon: float
    inject_noise: bool
    timestep_conditioning: bool


def channel_norm(steps_BCTHW: Tensor) -> Tensor:
    """RMS normalisation over the channels of every position, without weights."""
    mean_square = steps_BCTHW.float().square().mean(dim=1, keepdim=True)
    return (steps_BCTHW * torch.rsqrt(mean_square + NORM_EPSILON)).to(steps_BCTHW.dtype)


def embed_timestep(embedder: nn.Module, timestep_B: Tensor, steps_BCTHW: Tensor, parts: int) -> Tensor:
    """Sinusoids and an MLP: timesteps [B] -> [B, parts, C, 1, 1, 1]."""
    embedding: Tensor = embedder(
        timestep=timestep_B,
        resolution=None,
        aspect_ratio=None,
        batch_size=steps_BCTHW.shape[0],
        hidden_dtype=steps_BCTHW.dtype,
    )
    in_parts: Tensor = embedding.unflatten(1, (parts, -1))
    return in_parts[..., None, None, None]


class ResnetBlock(nn.Module):
    """Two convolutions with a shortcut; optionally modulated by the timestep and with noise after each convolution."""

    def __init__(self, in_channels: int, out_channels: int, options: BlockOptions) -> None:
        super().__init__()
        changes_width = in_channels != out_channels
        if changes_width and (options.inject_noise or options.timestep_conditioning):
            raise ValueError("a decoder block with noise or timestep conditioning must keep its width")
        self.conv1 = VideoConvolution(in_channels, out_channels, causal=options.causal)
        self.conv2 = VideoConvolution(out_channels, out_channels, causal=options.causal)
        self.norm3 = nn.LayerNorm(in_channels, eps=options.norm_epsilon) if changes_width else None
        self.conv_shortcut = (
            VideoConvolution(in_channels, out_channels, kernel_size=1, causal=options.causal) if changes_width else None
        )
        self.per_channel_scale1 = nn.Parameter(torch.zeros(in_channels, 1, 1)) if options.inject_noise else None
        self.per_channel_scale2 = nn.Parameter(torch.zeros(in_channels, 1, 1)) if options.inject_noise else None
        self.scale_shift_table = (
            nn.Parameter(torch.randn(4, in_channels) / in_channels**0.5) if options.timestep_conditioning else None
        )

    def forward(
        self, steps_BCTHW: Tensor, conditioning: Tensor | None, memory: StreamMemory, noise: InjectedNoise
    ) -> Tensor:
        hidden = channel_norm(steps_BCTHW)
        if self.scale_shift_table is not None:
            assert conditioning is not None
            modulation = conditioning + self.scale_shift_table[None, ..., None, None, None]
            shift1, scale1, shift2, scale2 = modulation.unbind(1)
            hidden = hidden * (1 + scale1) + shift1
        hidden = self.conv1(F.silu(hidden), memory)
        hidden = channel_norm(_with_noise(hidden, self.per_channel_scale1, noise))
        if self.scale_shift_table is not None:
            hidden = hidden * (1 + scale2) + shift2
        hidden = _with_noise(self.conv2(F.silu(hidden), memory), self.per_channel_scale2, noise)
        return hidden + self._shortcut(steps_BCTHW, memory)

    def _shortcut(self, steps_BCTHW: Tensor, memory: StreamMemory) -> Tensor:
        if self.norm3 is None or self.conv_shortcut is None:
            return steps_BCTHW
        normed = self.norm3(steps_BCTHW.movedim(1, -1)).movedim(-1, 1)
        shortcut: Tensor = self.conv_shortcut(normed, memory)
        return shortcut


class Downsampler(nn.Module):
    """Folds a stride of pixels into channels (0.9.5): the convolution plus the means of groups of folded channels."""

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int, int], *, causal: bool) -> None:
        super().__init__()
        self.stride = stride
        volume = stride[0] * stride[1] * stride[2]
        self.group_size = in_channels * volume // out_channels
        self.conv = VideoConvolution(in_channels, out_channels // volume, causal=causal)

    def forward(self, steps_BCTHW: Tensor, memory: StreamMemory) -> Tensor:
        if memory.starts_clip:
            # The first frame is alone in its group: it fills the group with its copies.
            steps_BCTHW = torch.cat([steps_BCTHW[:, :, : self.stride[0] - 1], steps_BCTHW], dim=2)
        means: Tensor = self._fold(steps_BCTHW).unflatten(1, (-1, self.group_size)).mean(dim=2)
        return self._fold(self.conv(steps_BCTHW, memory)) + means

    def _fold(self, steps_BCTHW: Tensor) -> Tensor:
        time, rows, columns = self.stride
        split: Tensor = steps_BCTHW.unflatten(4, (-1, columns)).unflatten(3, (-1, rows)).unflatten(2, (-1, time))
        return split.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)


class Upsampler(nn.Module):
    """Doubles time, rows and columns out of the channels of a convolution, optionally plus the unfolded input."""

    def __init__(self, in_channels: int, *, causal: bool, residual: bool, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor
        self.residual = residual
        self.conv = VideoConvolution(in_channels, in_channels * 8 // upscale_factor, causal=causal)

    def forward(self, steps_BCTHW: Tensor, memory: StreamMemory) -> Tensor:
        upsampled = self._unfold(self.conv(steps_BCTHW, memory))
        if self.residual:
            upsampled = upsampled + self._unfold(steps_BCTHW).repeat(1, 8 // self.upscale_factor, 1, 1, 1)
        # The first frame of a clip stays alone.
        return upsampled[:, :, 1:] if memory.starts_clip else upsampled

    @staticmethod
    def _unfold(steps_BCTHW: Tensor) -> Tensor:
        split: Tensor = steps_BCTHW.unflatten(1, (-1, 2, 2, 2))
        return split.permute(0, 1, 5, 2, 6, 3, 7, 4).flatten(6, 7).flatten(4, 5).flatten(2, 3)


class DownBlock(nn.Module):
    """Residual blocks, then half the resolution. `downsample_type` "conv" is LTX-Video 0.9.0, the others 0.9.5."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        layers: int,
        options: BlockOptions,
        *,
        downsample: bool,
        downsample_type: str,
        widens_last: bool,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(in_channels, in_channels, options) for _ in range(layers))
        downsampler = _downsampler(downsample_type, in_channels, out_channels, causal=options.causal)
        self.downsamplers = nn.ModuleList([downsampler] if downsample else [])
        widens = widens_last and in_channels != out_channels
        self.conv_out = ResnetBlock(in_channels, out_channels, options) if widens else None

    def forward(self, steps_BCTHW: Tensor, memory: StreamMemory, noise: InjectedNoise) -> Tensor:
        for resnet in self.resnets:
            steps_BCTHW = resnet(steps_BCTHW, None, memory, noise)
        for downsampler in self.downsamplers:
            steps_BCTHW = downsampler(steps_BCTHW, memory)
        if self.conv_out is not None:
            steps_BCTHW = self.conv_out(steps_BCTHW, None, memory, noise)
        return steps_BCTHW


class MidBlock(nn.Module):
    """Residual blocks at the coarsest resolution."""

    def __init__(self, channels: int, layers: int, options: BlockOptions) -> None:
        super().__init__()
        self.time_embedder = timestep_embedder(4 * channels) if options.timestep_conditioning else None
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, options) for _ in range(layers))

    def forward(
        self, steps_BCTHW: Tensor, timestep_B: Tensor | None, memory: StreamMemory, noise: InjectedNoise
    ) -> Tensor:
        conditioning = _conditioning(self.time_embedder, timestep_B, steps_BCTHW)
        for resnet in self.resnets:
            steps_BCTHW = resnet(steps_BCTHW, conditioning, memory, noise)
        return steps_BCTHW


class UpBlock(nn.Module):
    """A change of width, twice the resolution, then residual blocks."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        layers: int,
        options: BlockOptions,
        *,
        upsample: bool,
        upsample_residual: bool,
        upscale_factor: int,
    ) -> None:
        super().__init__()
        self.time_embedder = timestep_embedder(4 * in_channels) if options.timestep_conditioning else None
        self.conv_in = ResnetBlock(in_channels, out_channels, options) if in_channels != out_channels else None
        upsampler = Upsampler(
            out_channels * upscale_factor,
            causal=options.causal,
            residual=upsample_residual,
            upscale_factor=upscale_factor,
        )
        self.upsamplers = nn.ModuleList([upsampler] if upsample else [])
        self.resnets = nn.ModuleList(ResnetBlock(out_channels, out_channels, options) for _ in range(layers))

    def forward(
        self, steps_BCTHW: Tensor, timestep_B: Tensor | None, memory: StreamMemory, noise: InjectedNoise
    ) -> Tensor:
        if self.conv_in is not None:
            steps_BCTHW = self.conv_in(steps_BCTHW, None, memory, noise)
        conditioning = _conditioning(self.time_embedder, timestep_B, steps_BCTHW)
        for upsampler in self.upsamplers:
            steps_BCTHW = upsampler(steps_BCTHW, memory)
        for resnet in self.resnets:
            steps_BCTHW = resnet(steps_BCTHW, conditioning, memory, noise)
        return steps_BCTHW


def timestep_embedder(width: int) -> nn.Module:
    """diffusers' embedder of the decoding timestep, whose weights have a common name."""
    embedder: nn.Module = PixArtAlphaCombinedTimestepSizeEmbeddings(width, 0)
    return embedder


def _conditioning(embedder: nn.Module | None, timestep_B: Tensor | None, steps_BCTHW: Tensor) -> Tensor | None:
    if embedder is None:
        return None
    assert timestep_B is not None
    return embed_timestep(embedder, timestep_B, steps_BCTHW, parts=4)


def _downsampler(kind: str, in_channels: int, out_channels: int, *, causal: bool) -> nn.Module:
    strides = {"spatial": (1, 2, 2), "temporal": (2, 1, 1), "spatiotemporal": (2, 2, 2)}
    if kind == "conv":
        return VideoConvolution(in_channels, in_channels, stride=2, causal=causal)
    if kind not in strides:
        raise ValueError(f'downsample_type is "conv" or one of {sorted(strides)}, got "{kind}"')
    return Downsampler(in_channels, out_channels, strides[kind], causal=causal)


def _with_noise(hidden_BCTHW: Tensor, scale: Tensor | None, noise: InjectedNoise) -> Tensor:
    if scale is None:
        return hidden_BCTHW
    rows, columns = hidden_BCTHW.shape[3:]
    return hidden_BCTHW + noise.next((rows, columns), hidden_BCTHW)[:, None, None] * scale[:, None]
