"""What the video VAE's training makes small.

Legend: B batch, F frames, H W picture.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from visavis.models.video_autoencoder import Reconstruction


@dataclass(frozen=True, slots=True)
class LossWeights:
    """How much each part counts. Mouth and eyes are weights on top of a pixel's 1 (REST, appendix E)."""

    mouth: float
    eyes: float
    # of the squared error, which is what PSNR counts
    square: float
    # of the L1 error of neighbouring pixels' differences, which keeps edges sharp
    gradient: float
    # of the L1 error of what changes from frame to frame, which keeps latent and chunk borders invisible
    change: float
    kl: float
    # Standard deviation of noise on the latents, relative to theirs: what the generator will get wrong.
    latent_noise: float


def reconstruction_loss(
    reconstruction: Reconstruction, video_BF3HW: Tensor, mouth_BFHW: Tensor, eyes_BFHW: Tensor, weights: LossWeights
) -> dict[str, Tensor]:
    """Scalars: the loss, and its parts unweighted."""
    error = reconstruction.pictures.float() - video_BF3HW
    weight = (1.0 + weights.mouth * mouth_BFHW + weights.eyes * eyes_BFHW).unsqueeze(2)
    pixels, squares = _weighted(error.abs(), weight), _weighted(error.square(), weight)
    across, down = error.diff(dim=4).abs(), error.diff(dim=3).abs()
    edges = _weighted(across, weight[..., 1:]) + _weighted(down, weight[..., 1:, :])
    # A single picture has no change: the mean over nothing would be no number.
    changes = _weighted(error.diff(dim=1).abs(), weight[:, 1:]) if error.shape[1] > 1 else error.new_zeros(())
    divergence = reconstruction.kl_divergence()
    loss = pixels + weights.square * squares + weights.gradient * edges + weights.change * changes
    return {
        "loss": loss + weights.kl * divergence,
        "pixels": pixels,
        "squares": squares,
        "edges": edges,
        "changes": changes,
        "kl": divergence,
    }


def _weighted(error: Tensor, weight: Tensor) -> Tensor:
    return (error * weight).mean() / weight.mean()
