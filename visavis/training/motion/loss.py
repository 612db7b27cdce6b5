"""The flow-matching loss (paper Eq. 3, 18 and 20), the mouth weighted: it is 2 of 64 cells.

B samples, T latent frames, H W latent rows and columns, C latent channels
"""

from __future__ import annotations

from torch import Tensor


def velocity_error(predicted_BTHWC: Tensor, wanted_BTHWC: Tensor, mouth_BTHW: Tensor, mouth_weight: float) -> Tensor:
    """The mean square error, a cell that is all mouth counting 1 + `mouth_weight`; a scalar."""
    return _weighted(squares(predicted_BTHWC, wanted_BTHWC), 1.0 + mouth_weight * mouth_BTHW)


def mouth_error(predicted_BTHWC: Tensor, wanted_BTHWC: Tensor, mouth_BTHW: Tensor) -> Tensor:
    """The mean square error where the mouth is; a scalar, 0 where there is no mouth."""
    return _weighted(squares(predicted_BTHWC, wanted_BTHWC), mouth_BTHW)


def squares(predicted_BTHWC: Tensor, wanted_BTHWC: Tensor) -> Tensor:
    """The square error of each cell: [B, T, H, W], float32."""
    return (predicted_BTHWC.float() - wanted_BTHWC).square().mean(dim=-1)


def _weighted(squares_BTHW: Tensor, weights_BTHW: Tensor) -> Tensor:
    return (squares_BTHW * weights_BTHW).sum() / weights_BTHW.sum().clamp(min=1e-6)
