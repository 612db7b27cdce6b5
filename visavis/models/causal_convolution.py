"""Convolutions that never see the future: the output at step t depends on the steps up to t.

Legend: B batch, T time steps, H rows, W columns, C channels.
"""

import torch
from torch import Tensor, nn

from visavis.models.stream_memory import StreamMemory


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
