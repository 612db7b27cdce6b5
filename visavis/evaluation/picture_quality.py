"""How near pictures are to their originals: PSNR, also of a region, and SSIM.

F frames, H W picture; pictures are [F, 3, H, W] from 0 to 1
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Of Wang et al., "Image quality assessment: from error visibility to structural similarity" (2004), section III.
_WINDOW, _SIGMA = 11, 1.5
_STABLE_MEAN, _STABLE_CONTRAST = 0.01**2, 0.03**2
# ITU-R BT.709
_LUMA = (0.2126, 0.7152, 0.0722)


def psnr(original_F3HW: Tensor, other_F3HW: Tensor, share_FHW: Tensor | None = None) -> Tensor:
    """Peak signal to noise of each frame in decibels, [F]; equal frames have infinity.

    `share_FHW` weighs the pixels, 0 to 1: a mask gives the region's PSNR. Frames whose region is empty have NaN.
    """
    square_FHW = (original_F3HW - other_F3HW).square().mean(dim=1)
    if share_FHW is None:
        return -10 * torch.log10(square_FHW.mean(dim=(1, 2)))
    return -10 * torch.log10((square_FHW * share_FHW).sum(dim=(1, 2)) / share_FHW.sum(dim=(1, 2)))


def ssim(original_F3HW: Tensor, other_F3HW: Tensor) -> Tensor:
    """Structural similarity of each frame's luma, [F]: Gaussian windows of 11 pixels that lie inside the picture.

    Raises ValueError for pictures smaller than the window.
    """
    if min(original_F3HW.shape[2:]) < _WINDOW:
        raise ValueError(f"SSIM needs pictures of {_WINDOW} pixels at least")
    x, y = luma(original_F3HW)[:, None], luma(other_F3HW)[:, None]
    mean_x, mean_y = _smooth(x), _smooth(y)
    variance_x, variance_y = _smooth(x * x) - mean_x**2, _smooth(y * y) - mean_y**2
    covariance = _smooth(x * y) - mean_x * mean_y
    means = (2 * mean_x * mean_y + _STABLE_MEAN) / (mean_x**2 + mean_y**2 + _STABLE_MEAN)
    contrasts = (2 * covariance + _STABLE_CONTRAST) / (variance_x + variance_y + _STABLE_CONTRAST)
    similarity_F: Tensor = (means * contrasts).mean(dim=(1, 2, 3))
    return similarity_F


def luma(pictures_F3HW: Tensor) -> Tensor:
    """How bright each pixel looks, [F, H, W]."""
    weights = pictures_F3HW.new_tensor(_LUMA)
    return torch.einsum("fchw,c->fhw", pictures_F3HW, weights)


def _smooth(x_F1HW: Tensor) -> Tensor:
    places = torch.arange(_WINDOW, dtype=x_F1HW.dtype, device=x_F1HW.device) - _WINDOW // 2
    bell = torch.exp(-places.square() / (2 * _SIGMA**2))
    bell = bell / bell.sum()
    rows = functional.conv2d(x_F1HW, bell.view(1, 1, -1, 1))
    return functional.conv2d(rows, bell.view(1, 1, 1, -1))
