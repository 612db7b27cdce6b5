"""Convolutions that never see the future: the output at step t depends on the steps up to t.

Legend: B batch, T time steps, H rows, W columns, C channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visavis.models.stream_memory import StreamMemory


class CausalTimeConvolution(nn.Module):
    """Mixes time steps and channels of every position by itself: [B, T, H, W, C] -> [B, T', H, W, C'].

    With a stride s the first step stays alone and each further group of s steps becomes one, so 1 + s k steps
    give 1 + k. Before the first step of a clip its copies stand.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel_steps: int, stride_steps: int = 1) -> None:
        super().__init__()
        if not 1 <= stride_steps <= kernel_steps:
            raise ValueError(f"stride_steps must lie between 1 and kernel_steps={kernel_steps}, got {stride_steps}")
        self.kernel_steps = kernel_steps
        self.stride_steps = stride_steps
        self.weight = nn.Parameter(torch.zeros(out_channels, in_channels, kernel_steps, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, steps_BTHWC: Tensor, memory: StreamMemory) -> Tensor:
        extended = memory.extend(
            steps_BTHWC, dim=1, padding=self.kernel_steps - 1, kept=self.kernel_steps - self.stride_steps
        )
        rows, columns = extended.shape[2:4]
        # Channels last, a clip is a picture with time as its rows, so a 2-D convolution runs without a copy.
        picture = extended.flatten(2, 3).permute(0, 3, 1, 2)
        mixed = F.conv2d(picture, self.weight, self.bias, stride=(self.stride_steps, 1))
        steps: Tensor = mixed.permute(0, 2, 3, 1).unflatten(2, (rows, columns))
        return steps


class VideoConvolution(nn.Module):
    """A 3-D convolution over [B, C, T, H, W] whose time border is the repeated first step (LTX-Video's layout).

    Causal, all of the border stands before the clip; otherwise half of it stands after, and a stream is impossible.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel_size: int = 3, stride: int = 1, causal: bool
    ) -> None:
        super().__init__()
        self.causal = causal
        self.kernel_steps = kernel_size
        self.stride_steps = stride
        side = kernel_size // 2
        self.conv = nn.Conv3d(in_channels, out_channels, kernel_size, stride=stride, padding=(0, side, side))

    def forward(self, steps_BCTHW: Tensor, memory: StreamMemory) -> Tensor:
        border = self.kernel_steps - 1
        if border == 0:
            extended = steps_BCTHW
        elif self.causal:
            extended = memory.extend(steps_BCTHW, dim=2, padding=border, kept=self.kernel_steps - self.stride_steps)
        else:
            extended = _with_border_on_both_sides(steps_BCTHW, border // 2)
        convolved: Tensor = self.conv(extended)
        return convolved


def _with_border_on_both_sides(steps_BCTHW: Tensor, border: int) -> Tensor:
    first = steps_BCTHW[:, :, :1].expand(-1, -1, border, -1, -1)
    last = steps_BCTHW[:, :, -1:].expand(-1, -1, border, -1, -1)
    return torch.cat([first, steps_BCTHW, last], dim=2)
