"""The Fréchet distance between Gaussians fitted to two sets of features: the arithmetic of FID, FVD and E-FID.

N samples, D channels
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Mean [D] and covariance [D, D] of features."""

    mean_D: Floats
    covariance_DD: Floats


def fit_gaussian(features_ND: npt.ArrayLike) -> Gaussian:
    """Mean, and covariance with N - 1 in the denominator. Raises ValueError for less than two samples."""
    features = np.asarray(features_ND, dtype=np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"a Gaussian is fitted to two samples at least, [N, D]; got {list(features.shape)}")
    return Gaussian(features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False)))


def frechet_distance(one: Gaussian, other: Gaussian) -> float:
    """|m1 - m2|² + Tr(C1 + C2 - 2 (C1 C2)^½) (Dowson and Landau, 1982). Raises ValueError for different channels.

    The trace of the root is the sum of the roots of the eigenvalues of C1^½ C2 C1^½, which is symmetric and has those
    of C1 C2. So it is exact also where fewer samples than channels make C1 C2 singular; programs that take scipy's
    `sqrtm` of C1 C2 then depend on its rounding.
    """
    if one.mean_D.shape != other.mean_D.shape:
        raise ValueError(f"features of {len(one.mean_D)} and {len(other.mean_D)} channels cannot be compared")
    values_D, vectors_DD = np.linalg.eigh(one.covariance_DD)
    root_DD = (vectors_DD * np.sqrt(values_D.clip(min=0))) @ vectors_DD.T
    common_D = np.linalg.eigvalsh(root_DD @ other.covariance_DD @ root_DD)
    apart = np.square(one.mean_D - other.mean_D).sum()
    spread = np.trace(one.covariance_DD) + np.trace(other.covariance_DD)
    return float(apart + spread - 2 * np.sqrt(common_D.clip(min=0)).sum())
