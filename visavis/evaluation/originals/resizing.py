"""Resizes pictures as OpenCV does by default: bilinear between the nearest pixels, nothing smoothed before."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

Pictures = npt.NDArray[np.uint8]


def resize_bilinear(picture_HW3: Pictures, rows: int, columns: int) -> Pictures:
    """`cv2.resize` with INTER_LINEAR, to within one level of rounding."""
    pixels = torch.from_numpy(np.ascontiguousarray(picture_HW3)).permute(2, 0, 1)[None].float()
    resized = functional.interpolate(pixels, (rows, columns), mode="bilinear", align_corners=False)
    levels: Pictures = (resized[0] + 0.5).floor().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
    return levels
