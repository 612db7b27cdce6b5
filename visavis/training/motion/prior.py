"""The prior of a transformer that starts from nothing: mean and covariance of the latents that it is to learn."""

from __future__ import annotations

from typing import Final

import torch

from visavis.models.a2v_dit import A2VTransformer
from visavis.training.motion.clips import MotionClips

_CLIPS: Final = 512


@torch.no_grad()
def fit_prior(transformer: A2VTransformer, clips: MotionClips) -> None:
    """Fits it to all cells of clips spread over the data but for their first frame, which is not generated."""
    if transformer.prior is None:
        return
    count, sums, products = 0, torch.zeros(()), torch.zeros(())
    for clip in clips.spread(_CLIPS):
        cells_NC = clip.picture.latents_THWC[1:].flatten(0, 2).double()
        count, sums, products = count + len(cells_NC), sums + cells_NC.sum(dim=0), products + cells_NC.T @ cells_NC
    mean_C = sums / count
    transformer.prior.fit(mean_C.float(), products / count - torch.outer(mean_C, mean_C))
