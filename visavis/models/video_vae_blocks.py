"""The blocks of the mini video VAE: space and time are factorised ("2+1-D").

Spatial blocks see one frame at a time and fold time into the batch; temporal blocks see one position at a time.
Normalisation is per frame, since statistics over time would make a chunk differ from the whole clip. Every temporal
block starts so that a still picture passes through it unchanged: what was learnt from single pictures carries over
to clips.

Legend: B batch, T time steps, H rows, W columns, C channels, N frames (B times T).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visavis.models.causal_convolution import CausalTimeConvolution
from visavis.models.stream_memory import StreamMemory

# How strongly an untrained temporal block reacts to motion, relative to a usual initialisation.
MOTION_GAIN = 0.1


def frames_of(steps_BTHWC: Tensor) -> Tensor:
    """[B, T, H, W, C] -> [N, C, H, W] in channels-last memory, without a copy."""
    return steps_BTHWC.flatten(0, 1).permute(0, 3, 1, 2)


def steps_of(frames_NCHW: Tensor, batch_size: int) -> Tensor:
    """The inverse of `frames_of`."""
    steps: Tensor = frames_NCHW.permute(0, 2, 3, 1).unflatten(0, (batch_size, -1))
    return steps


def keep_scale(conv: nn.Conv2d) -> nn.Conv2d:
    """Starts `conv` so that what leaves it has about the variance of what enters, and returns it."""
    fan_in = conv.in_channels * conv.kernel_size[0] * conv.kernel_size[1]
    nn.init.normal_(conv.weight, std=fan_in**-0.5)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


class SpatialBlock(nn.Module):
    """Residual block of one frame: [N, C, H, W] -> the same shape. Starts as the identity."""

    def __init__(self, channels: int, norm_groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(norm_groups, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        with torch.no_grad():
            for parameter in self.conv2.parameters():
                parameter.zero_()

    def forward(self, frames_NCHW: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm(frames_NCHW)))
        updated: Tensor = frames_NCHW + self.conv2(F.silu(hidden))
        return updated


class SpatialBlocks(nn.Sequential):
    """Spatial blocks in a row; most of the activations of a training step are here, so they can be computed twice."""

    _gradient_checkpointing_func: Callable[[nn.Module, Tensor], Tensor]

    def __init__(self, channels: int, count: int, norm_groups: int) -> None:
        super().__init__(*(SpatialBlock(channels, norm_groups) for _ in range(count)))
        # Switched by diffusers' `enable_gradient_checkpointing`, which also sets the function.
        self.gradient_checkpointing = False

    def forward(self, frames_NCHW: Tensor) -> Tensor:
        for block in self:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                frames_NCHW = self._gradient_checkpointing_func(block, frames_NCHW)
            else:
                frames_NCHW = block(frames_NCHW)
        return frames_NCHW


class SpatialUpsampling(nn.Module):
    """Doubles rows and columns: [N, C, H, W] -> [N, C', 2H, 2W]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = keep_scale(nn.Conv2d(in_channels, 4 * out_channels, 1))

    def forward(self, frames_NCHW: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(frames_NCHW), 2)


class TemporalBlock(nn.Module):
    """Residual block over time: [B, T, H, W, C] -> the same shape, three steps wide."""

    def __init__(self, channels: int, norm_groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(norm_groups, channels)
        self.conv = CausalTimeConvolution(channels, channels, kernel_steps=3)
        _react_to_motion_only(self.conv)

    def forward(self, steps_BTHWC: Tensor, memory: StreamMemory) -> Tensor:
        normed = steps_of(F.silu(self.norm(frames_of(steps_BTHWC))), steps_BTHWC.shape[0])
        updated: Tensor = steps_BTHWC + self.conv(normed, memory)
        return updated


class TemporalDownsampling(nn.Module):
    """Halves time: [B, 1 + 2k, H, W, C] -> [B, 1 + k, H, W, C]. Starts by keeping the last frame of each pair."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = CausalTimeConvolution(channels, channels, kernel_steps=3, stride_steps=2)
        _react_to_motion_only(self.conv)
        with torch.no_grad():
            self.conv.weight[:, :, -1, 0] += torch.eye(channels)

    def forward(self, steps_BTHWC: Tensor, memory: StreamMemory) -> Tensor:
        halved: Tensor = self.conv(steps_BTHWC, memory)
        return halved


class TemporalUpsampling(nn.Module):
    """Doubles time: [B, 1 + k, H, W, C] -> [B, 1 + 2k, H, W, C].

    Starts as linear interpolation between a step and the one before.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = CausalTimeConvolution(channels, 2 * channels, kernel_steps=2)
        _react_to_motion_only(self.conv)
        same = torch.eye(channels)
        with torch.no_grad():
            self.conv.weight[:channels, :, 0, 0] += 0.5 * same
            self.conv.weight[:channels, :, 1, 0] += 0.5 * same
            self.conv.weight[channels:, :, 1, 0] += same

    def forward(self, steps_BTHWC: Tensor, memory: StreamMemory) -> Tensor:
        pairs: Tensor = self.conv(steps_BTHWC, memory)
        doubled: Tensor = pairs.unflatten(4, (2, -1)).permute(0, 1, 4, 2, 3, 5).flatten(1, 2)
        # The first frame of a clip stays alone: it has no step between itself and a frame before.
        return doubled[:, 1:] if memory.starts_clip else doubled


def _react_to_motion_only(conv: CausalTimeConvolution) -> None:
    """Random weights that add up to zero over time, so that a picture standing still gives exactly nothing."""
    with torch.no_grad():
        fan_in = conv.weight.shape[1] * conv.kernel_steps
        conv.weight.normal_(std=MOTION_GAIN / fan_in**0.5)
        conv.weight.sub_(conv.weight.mean(dim=2, keepdim=True))
