"""The blocks of the mini video VAE, which works on cells of 32 x 32 pixels as on tokens.

Legend: B batch, T time steps, H rows, W columns, C channels, N pictures (B times T).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visavis.models.stream_memory import StreamMemory

# What a block adds is corrections, a few hundredths of what passes through it. Without this factor one step of an
# optimiser that moves each weight alike (Adam) moves the sum of a layer's hundreds of inputs by more than that.
RESIDUAL_GAIN = 0.03


def pictures_of(steps_BTHWC: Tensor) -> Tensor:
    """[B, T, H, W, C] -> [N, C, H, W] in channels-last memory, without a copy."""
    return steps_BTHWC.flatten(0, 1).permute(0, 3, 1, 2)


def steps_of(pictures_NCHW: Tensor, batch_size: int) -> Tensor:
    """The inverse of `pictures_of`."""
    steps: Tensor = pictures_NCHW.permute(0, 2, 3, 1).unflatten(0, (batch_size, -1))
    return steps


class CellBlock(nn.Module):
    """Residual block: [B, T, H, W, C] -> the same shape; adds little to it.

    A filter of each channel over 5 x 5 cells and three steps, the present one and two before, then two layers at each
    cell (ConvNeXt, arXiv 2201.03545, with time). Normalisation is per cell, so that a chunk equals the whole clip.
    """

    STEPS = 3
    SIDE = 5

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        self.around = nn.Conv2d(
            self.STEPS * channels, channels, self.SIDE, padding=self.SIDE // 2, groups=channels, bias=False
        )
        self.norm = nn.RMSNorm(channels)
        self.widen = nn.Linear(channels, expansion * channels)
        self.narrow = nn.Linear(expansion * channels, channels)

    def add_nothing(self) -> None:
        """Makes the block the identity until it learns."""
        for parameter in self.narrow.parameters():
            nn.init.zeros_(parameter)

    def forward(self, steps_BTHWC: Tensor, memory: StreamMemory) -> Tensor:
        extended = memory.extend(steps_BTHWC, dim=1, padding=self.STEPS - 1, kept=self.STEPS - 1)
        steps = steps_BTHWC.shape[1]
        # A group of the filter sees one channel at three steps.
        seen = torch.stack([extended[:, start : start + steps] for start in range(self.STEPS)], dim=-1).flatten(4)
        mixed = self.norm(steps_of(self.around(pictures_of(seen)), len(steps_BTHWC)))
        added: Tensor = self.narrow(F.gelu(self.widen(mixed), approximate="tanh"))
        return steps_BTHWC + RESIDUAL_GAIN * added


class CellBlocks(nn.ModuleList):
    """Blocks in a row; their activations can be computed twice in a training step."""

    _gradient_checkpointing_func: Callable[[nn.Module, Tensor, StreamMemory], Tensor]

    def __init__(self, channels: int, count: int, expansion: int) -> None:
        super().__init__(CellBlock(channels, expansion) for _ in range(count))
        # Switched by diffusers' `enable_gradient_checkpointing`, which also sets the function.
        self.gradient_checkpointing = False

    def forward(self, steps_BTHWC: Tensor, memory: StreamMemory) -> Tensor:
        for block in self:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                steps_BTHWC = self._gradient_checkpointing_func(block, steps_BTHWC, memory)
            else:
                steps_BTHWC = block(steps_BTHWC, memory)
        return steps_BTHWC


class Detail(nn.Module):
    """What pictures have beyond a cell's own components: [N, C, H, W] of half cells -> pictures [N, 3, 16 H, 16 W].

    Sees across the borders of cells.
    """

    PIXELS = 16

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, hidden, 3, padding=1)
        self.conv_hidden = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.conv_out = nn.Conv2d(hidden, 3 * self.PIXELS**2, 1)

    def add_nothing(self) -> None:
        """Makes this part put out nothing until it learns."""
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, halves_NCHW: Tensor) -> Tensor:
        hidden = self.conv_hidden(F.silu(self.conv_in(F.silu(halves_NCHW))))
        added: Tensor = F.pixel_shuffle(self.conv_out(F.silu(hidden)), self.PIXELS)
        return RESIDUAL_GAIN * added
