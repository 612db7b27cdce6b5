"""How well a linear map reads a signal from features: ridge regression, judged on clips it was not fitted on.

N samples, D features, K targets
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Relative to the mean power of the samples.
_RIDGES = tuple(10.0**exponent for exponent in range(-5, 3))
# Every fifth clip chooses the ridge.
_CHOOSING_EVERY = 5


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """`r2`: 1 - (squared error) / (squared deviation from the mean), over all targets of the judged samples."""

    r2: float
    ridge: float


def probe(
    known_ND: Tensor, wanted_NK: Tensor, clips_N: Tensor, judged_MD: Tensor, judged_wanted_MK: Tensor
) -> ProbeResult:
    """Fits on `known`, whose ridge is chosen on every fifth of its clips, and judges on `judged`.

    Channels lose their mean, and all are divided by one deviation: with one of its own for each channel the jaw is read
    worse, from features (0.793 instead of 0.804) and latents alike. `clips_N` numbers the clip of each sample. Works in
    the space of samples, so D may be far larger than N.
    """
    mean_D, std = known_ND.mean(dim=0), known_ND.std()
    known, judged = (known_ND - mean_D) / std, (judged_MD - mean_D) / std
    gram_NN = (known @ known.T).double()
    choosing_N = clips_N % _CHOOSING_EVERY == 0
    fitting = (~choosing_N).nonzero().flatten()
    chosen = choosing_N.nonzero().flatten()
    if min(len(fitting), len(chosen)) == 0:
        raise ValueError(f"a probe needs {_CHOOSING_EVERY} clips at least")
    ridge = max(
        _RIDGES,
        key=lambda ridge: r2(
            wanted_NK[chosen],
            _predict(gram_NN[fitting][:, fitting], gram_NN[chosen][:, fitting], wanted_NK[fitting], ridge),
        ),
    )
    predicted_MK = _predict(gram_NN, (judged @ known.T).double(), wanted_NK, ridge)
    return ProbeResult(r2(judged_wanted_MK, predicted_MK), ridge)


def r2(wanted_MK: Tensor, predicted_MK: Tensor) -> float:
    """The share of the wanted values' variance, around one mean for all, that the prediction explains."""
    wanted = wanted_MK.double()
    return float(1 - (wanted - predicted_MK).square().sum() / (wanted - wanted.mean()).square().sum())


def _predict(gram_NN: Tensor, gram_MN: Tensor, wanted_NK: Tensor, ridge: float) -> Tensor:
    """Ridge regression with an intercept in its dual form."""
    mean_K = wanted_NK.double().mean(dim=0)
    power = float(gram_NN.diagonal().mean())
    lifted_NN = gram_NN + ridge * power * torch.eye(len(gram_NN), dtype=torch.float64)
    weights_NK = torch.linalg.solve(lifted_NN, wanted_NK.double() - mean_K)
    predicted_MK: Tensor = gram_MN @ weights_NK + mean_K
    return predicted_MK
