"""How much fine detail pictures have: the mean size of the Laplacian of their luma.

F frames, H W picture
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from visavis.evaluation.picture_quality import luma
from visavis.evaluation.video_vae import as_pictures


def sharpness(frames_FHW3: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """[F]; four neighbours against the pixel between them, pixels at the rim left out. Noise counts as detail, too."""
    luma_FHW = luma(as_pictures(frames_FHW3))
    middle = luma_FHW[:, 1:-1, 1:-1]
    around = luma_FHW[:, :-2, 1:-1] + luma_FHW[:, 2:, 1:-1] + luma_FHW[:, 1:-1, :-2] + luma_FHW[:, 1:-1, 2:]
    detail_F: torch.Tensor = (around - 4 * middle).abs().mean(dim=(1, 2))
    return np.asarray(detail_F.double().numpy())
