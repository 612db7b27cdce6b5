"""How far a picture's colour is from another's, as people see it.

F frames, H W picture
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# sRGB to XYZ (D65), IEC 61966-2-1, divided by the white point: so white has 1, 1, 1.
_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_KNEE = 216 / 24389


def mean_lab(frames_FHW3: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The mean colour of each frame in linear light, as CIE L*a*b*, [F, 3]."""
    levels = np.arange(256) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    mean_F3 = np.stack([linear[frame].mean(axis=(0, 1)) for frame in frames_FHW3])
    xyz_F3 = mean_F3 @ (_TO_XYZ / _TO_XYZ.sum(axis=1, keepdims=True)).T
    bent = np.where(xyz_F3 > _KNEE, np.cbrt(xyz_F3), (24389 / 27 * xyz_F3 + 16) / 116)
    x, y, z = bent.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def colour_distance(one_F3: npt.NDArray[np.float64], other_3: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """CIE 1976 difference; about 1 is the least that people notice side by side."""
    distance: npt.NDArray[np.float64] = np.linalg.norm(one_F3 - other_3, axis=-1)
    return distance
