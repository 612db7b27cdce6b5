"""What a noisy latent alone says of its velocity: the part of denoising that needs no network.

Legend: R rows, T latent frames, H W latent rows and columns, C latent channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

# Of a level: clean latents have no velocity to tell.
_LEAST_LEVEL = 1e-3
# A cell varies at most 400 times as much as the data, or as little.
_LARGEST_LOG_FACTOR = 6.0


class LatentPrior(nn.Module):
    """A cell's latents as if they were Gaussian, with the mean and covariance of the data; standard normal at first.

    The covariance is kept as its eigenvectors [C, C] and variances [C]. What a network adds is scaled to a variance of
    one in every direction and at every level, as in Karras et al., Elucidating the Design Space of Diffusion-Based
    Generative Models (2022), section 5, but with the data's whole covariance.
    """

    mean: Tensor
    directions: Tensor
    variances: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("directions", torch.eye(channels))
        self.register_buffer("variances", torch.ones(channels))

    def fit(self, mean_C: Tensor, covariance_CC: Tensor) -> None:
        """Takes over what was measured. Raises ValueError for other sizes or what is no covariance."""
        if mean_C.shape != self.mean.shape or covariance_CC.shape != self.directions.shape:
            raise ValueError(f"a prior of {len(self.mean)} channels has that many means, and covariances squared")
        if not bool(torch.isfinite(covariance_CC).all()):
            raise ValueError("the covariance is not finite")
        variances, directions = torch.linalg.eigh(covariance_CC.double())
        if float(variances[0]) < -1e-6 * float(variances[-1]):
            raise ValueError("no direction of a covariance has less than no variance")
        self.mean.copy_(mean_C)
        self.directions.copy_(directions)
        self.variances.copy_(variances.clamp_min(0.0))

    def velocity(self, latents_RTHWC: Tensor, levels_RT: Tensor, output_RTHWO: Tensor) -> Tensor:
        """E[noise - clean] given latents (1 - t) clean + t noise alone, with t the level, plus a residual (float32).

        In a direction of variance v, with s = (1 - t)^2 v + t^2, what lies y above the mean has the velocity
        (t - (1 - t) v) / s y and leaves a variance of v / s open. The output has for each direction the residual, in
        units of that deviation, and then (O = 2 C) by how much this cell's log-variance differs from the data's.
        """
        residual, log_factor = output_RTHWO.float().chunk(2, dim=-1)
        variances = self.variances * (_LARGEST_LOG_FACTOR * (log_factor / _LARGEST_LOG_FACTOR).tanh()).exp()
        level = levels_RT.float().clamp_min(_LEAST_LEVEL)[:, :, None, None, None]
        clean_share = 1.0 - level
        seen = clean_share.square() * variances + level.square()
        above = (latents_RTHWC.float() - clean_share * self.mean) @ self.directions
        gained = (level - clean_share * variances) / seen * above
        left = (variances / seen).sqrt() * residual
        velocity: Tensor = (gained + left) @ self.directions.T - self.mean
        return velocity

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves with its transformer but stays float32: rounded, strong directions would leak into weak ones."""
        kept = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in kept.items():
            self.register_buffer(name, buffer.to(self.get_buffer(name).device))
        return self
