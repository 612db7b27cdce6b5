"""Optical flow on a coarse grid: how the video VAE's encoder sees motion, and how its decoder moves pictures.

A flow says for each place of a picture how far away, in pixels (x, then y), its content is found in a reference:
picture(p) = reference(p + flow(p)). It is kept at one point in 8 x 8 pixels and bilinear between them. All of it is
computed in float32: bfloat16 cannot say where in a picture of 256 pixels something is.

Legend: N pictures, R references of each, H W picture, h w grid (H/8, W/8), C channels.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

GRID: Final = 8
# How much pictures are made smaller, one level after the other, and how often the flow is corrected at each.
_LEVELS: Final = ((4, 3), (2, 3))
# Pixels of the level: how far one correction may go.
_LONGEST_STEP: Final = 1.5
# Added to the squared gradient of pictures in [-1, 1]: where nothing can be seen to move, nothing does.
_STIFFNESS: Final = 5e-4


@torch.no_grad()
def estimate_flow(pictures_NHW: Tensor, references_NRHW: Tensor) -> Tensor:
    """Flow [N, R, 2, h, w] from grey pictures in [-1, 1] to their references; H and W are multiples of 8.

    Lucas and Kanade's (An Iterative Image Registration Technique, 1981), from coarse to fine, on 3 x 3 points of the
    grid at a time: to first order a shift changes a picture by its gradient times the shift, so the shift is what
    explains the difference best in least squares.
    """
    pictures_N1HW, references_NRHW = pictures_NHW.float().unsqueeze(1), references_NRHW.float()
    count, references, height, width = references_NRHW.shape
    flow_NR2hw = pictures_N1HW.new_zeros(count, references, 2, height // GRID, width // GRID)
    for factor, corrections in _LEVELS:
        small_N1HW = F.avg_pool2d(pictures_N1HW, factor)
        small_references = F.avg_pool2d(references_NRHW, factor).flatten(0, 1).unsqueeze(1)
        gradient_N2HW = _gradient(small_N1HW)
        across, down = gradient_N2HW[:, :1], gradient_N2HW[:, 1:]
        squares = _around_points(torch.cat([across * across, across * down, down * down], dim=1), factor)
        xx, xy, yy = (squares[:, None, index] for index in range(3))
        xx, yy = xx + _STIFFNESS, yy + _STIFFNESS
        determinant = xx * yy - xy * xy
        for _ in range(corrections):
            moved = warp(small_references, flow_NR2hw.flatten(0, 1))
            error_NRHW = moved.view(count, references, *moved.shape[2:]) - small_N1HW
            pulled = (gradient_N2HW[:, None] * error_NRHW[:, :, None]).flatten(0, 1)
            x, y = _around_points(pulled, factor).unflatten(0, (count, references)).unbind(dim=2)
            step = torch.stack([yy * x - xy * y, xx * y - xy * x], dim=2) / determinant[:, :, None]
            flow_NR2hw = flow_NR2hw - factor * step.clamp(-_LONGEST_STEP, _LONGEST_STEP)
    return flow_NR2hw


def warp(references_NCHW: Tensor, flow_N2hw: Tensor) -> Tensor:
    """What a flow finds in the references, [N, C, H, W] in float32; these may be smaller by a power of two up to 8.

    Bilinear between the points of the grid and between pixels; beyond the picture its border goes on.
    """
    references, flow_N2hw = references_NCHW.float(), flow_N2hw.float()
    (height, width), points = references.shape[2:], flow_N2hw.shape[2:]
    # As shares of the picture's size from -1 to 1, which are the same at every level.
    halves = flow_N2hw.new_tensor([points[1], points[0]]).mul(GRID / 2).view(2, 1, 1)
    offsets_N2HW = flow_N2hw / halves
    if height != points[0]:
        scale = height // points[0]
        offsets_N2HW = F.interpolate(offsets_N2HW, scale_factor=scale, mode="bilinear", align_corners=False)
    x, y = (torch.arange(1, 2 * size, 2, device=flow_N2hw.device).div(size).sub(1) for size in (width, height))
    places_N2HW = offsets_N2HW + torch.stack(torch.meshgrid(x, y, indexing="xy"))
    return F.grid_sample(references, places_N2HW.permute(0, 2, 3, 1), padding_mode="border", align_corners=False)


def _gradient(pictures_N1HW: Tensor) -> Tensor:
    """Central differences [N, 2, H, W], across and down."""
    padded = F.pad(pictures_N1HW, [1] * 4, mode="replicate")
    across = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    return torch.cat([across, down], dim=1) / 2


def _around_points(values_NCHW: Tensor, factor: int) -> Tensor:
    """Means around each point of the grid of pictures that are `factor` times smaller, [N, C, h, w]."""
    padded = F.pad(F.avg_pool2d(values_NCHW, GRID // factor), [1] * 4, mode="replicate")
    across = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    return (across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]) / 16
