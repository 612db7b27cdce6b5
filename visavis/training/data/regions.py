"""Where mouth and eyes are in each frame: ellipses, kept as numbers, drawn as a mask of any size.

Legend: F frames, E ellipses (mouth, left eye, right eye), N points, R rows, C columns. Coordinates are shares of the
picture, x to the right, y down; `...` may be several clips.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visavis.training.data.texture import Singles

REGIONS = ("mouth", "left_eye", "right_eye")
# How much wider and higher than the rim's box a region is: lips have surroundings, eyes have lids and lashes.
_MARGINS = {"mouth": (1.25, 1.5), "left_eye": (1.2, 1.6), "right_eye": (1.2, 1.6)}
_LEAST_HEIGHT = 0.4  # of the width: a closed eye is still an eye


def ellipse_around(points_N2: Singles, region: str, size: int) -> Singles:
    """Centre x, centre y, half width, half height [4] around a rim's points, in pixels of a picture of `size`."""
    low, high = points_N2.min(axis=0), points_N2.max(axis=0)
    half = (high - low) / 2 * np.array(_MARGINS[region])
    half[1] = max(half[1], _LEAST_HEIGHT * half[0])
    return np.asarray(np.concatenate([(low + high) / 2, half]) / size, dtype=np.float32)


def draw_mask(ellipses_FE4: Singles, rows: int, columns: int) -> npt.NDArray[np.float32]:
    """The share of each cell that lies in any ellipse: [F, R, C] from 0 to 1, for pixels or latent cells alike."""
    return mask_of(torch.from_numpy(np.asarray(ellipses_FE4, dtype=np.float32)), rows, columns).numpy()


def mask_of(ellipses_FE4: Tensor, rows: int, columns: int) -> Tensor:
    """As `draw_mask`, where the ellipses are: [..., F, E, 4] -> [..., F, R, C]."""
    finer = max(1, -(-64 // min(rows, columns)))
    y, x = ((torch.arange(n, device=ellipses_FE4.device) + 0.5) / n for n in (rows * finer, columns * finer))
    centre_x, centre_y, half_width, half_height = ellipses_FE4[..., None].unbind(-2)
    across = ((x - centre_x) / half_width.clamp_min(1e-6)) ** 2
    down = ((y - centre_y) / half_height.clamp_min(1e-6)) ** 2
    inside = (down[..., :, None] + across[..., None, :] <= 1).any(dim=-3)
    cells = inside.unflatten(-1, (columns, finer)).unflatten(-3, (rows, finer))
    shares: Tensor = inside.float() if finer == 1 else cells.float().mean(dim=(-3, -1))
    return shares
