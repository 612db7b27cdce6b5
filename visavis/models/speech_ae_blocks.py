"""The convolutions of SpeechAE: causal in time, so that a chunk needs only the last inputs of the chunk before it.

B batch, C channels, T time steps, W window
"""

from typing import TypeAlias

import torch
from torch import nn
from torch.nn import functional

# The last (kernel - stride) inputs of a convolution, [B, C, kernel - stride, ...]; None before the first time step.
Past: TypeAlias = torch.Tensor | None

TIME_KERNEL = 3


class ChannelNorm(nn.Module):
    """Divides by the root mean square over the channels (dimension 1), at each time step and window place by itself.

    A norm over time would make chunked and whole differ.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x_BCT: torch.Tensor) -> torch.Tensor:
        return scale_to_unit_rms(x_BCT) * self.weight.view(-1, *[1] * (x_BCT.ndim - 2))


def scale_to_unit_rms(x_BCT: torch.Tensor) -> torch.Tensor:
    """Root mean square 1 over the channels (dimension 1); reckoned in float32."""
    wide = x_BCT.float()
    return (wide * torch.rsqrt(wide.square().mean(dim=1, keepdim=True) + 1e-6)).to(x_BCT.dtype)


def join_past(x_BCT: torch.Tensor, past: Past, stride: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Puts the past before x on the time axis (dimension 2) and cuts off what the next chunk will need as its past.

    Before the first time step the first input is repeated, so the first frame stands alone.
    """
    if past is None:
        past = x_BCT[:, :, :1].expand(-1, -1, TIME_KERNEL - 1, *x_BCT.shape[3:])
    joined = torch.cat([past, x_BCT], dim=2)
    # A view would keep the whole chunk's activations alive in the session's state.
    return joined, joined[:, :, joined.shape[2] - (TIME_KERNEL - stride) :].clone()


class DownsampleBlock(nn.Module):
    """Halves time, and the window where its stride says so; then mixes the channels at each place.

    The first input of a stream gives one output by itself, 2n further inputs give n.
    """

    def __init__(
        self, in_channels: int, out_channels: int, window_kernel: int, window_stride: int, window_padding: int
    ) -> None:
        super().__init__()
        self.norm = ChannelNorm(in_channels)
        self.down = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size=(TIME_KERNEL, window_kernel),
            stride=(2, window_stride),
            padding=(0, window_padding),
        )
        self.mix = nn.Sequential(
            ChannelNorm(out_channels),
            nn.Conv2d(out_channels, out_channels, kernel_size=1),
            nn.SiLU(),
            nn.Conv2d(out_channels, out_channels, kernel_size=1),
        )

    def forward(self, x_BCTW: torch.Tensor, past: Past) -> tuple[torch.Tensor, torch.Tensor]:
        joined_BCTW, past = join_past(functional.silu(self.norm(x_BCTW)), past, stride=2)
        down_BCTW = self.down(joined_BCTW)
        return down_BCTW + self.mix(down_BCTW), past


class ResidualBlock(nn.Module):
    """Two causal convolutions in time around a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.conv1 = nn.Conv1d(channels, channels, TIME_KERNEL)
        self.norm2 = ChannelNorm(channels)
        self.conv2 = nn.Conv1d(channels, channels, TIME_KERNEL)

    def forward(self, x_BCT: torch.Tensor, past1: Past, past2: Past) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        joined_BCT, past1 = join_past(functional.silu(self.norm1(x_BCT)), past1, stride=1)
        hidden_BCT = self.conv1(joined_BCT)
        joined_BCT, past2 = join_past(functional.silu(self.norm2(hidden_BCT)), past2, stride=1)
        return x_BCT + self.conv2(joined_BCT), past1, past2


class UpsampleBlock(nn.Module):
    """Doubles time: a causal convolution makes two steps of each.

    Of the first input of a stream only the second step is kept: n + 1 inputs give 2n + 1 outputs.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.residual = ResidualBlock(in_channels)
        self.up = nn.Conv1d(in_channels, 2 * out_channels, TIME_KERNEL)

    def forward(self, x_BCT: torch.Tensor, pasts: tuple[Past, ...]) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        first = pasts[0] is None
        hidden_BCT, past1, past2 = self.residual(x_BCT, pasts[0], pasts[1])
        joined_BCT, past3 = join_past(hidden_BCT, pasts[2], stride=1)
        pairs_BCT = self.up(joined_BCT)
        steps_BCT = pairs_BCT.unflatten(1, (-1, 2)).transpose(2, 3).flatten(2)
        return steps_BCT[:, :, int(first) :], (past1, past2, past3)


UPSAMPLE_PASTS = 3
