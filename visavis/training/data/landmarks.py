"""Which vertices of the base mesh are the rims of lips and lids.

Found once: on 24 rendered people of every ancestry, the vertex nearest to each of MediaPipe's points of the outer lip
line and the lids (0.7 to 3.3 pixels apart in pictures of 512; together as wide and high as MediaPipe's within 9 %).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from visavis.training.data.makehuman import Indices

_MOUTH = (
    412, 413, 442, 455, 456, 478, 480, 492, 500, 585,
    5354, 7172, 7173, 7185, 7215, 7233, 7235, 7290, 7324, 11953,
)  # fmt: skip
# left and right are the person's
_LEFT_EYE = (6790, 6809, 6814, 6831, 6854, 6856, 7751, 7767, 7781, 7784, 7790, 13353, 13359, 13363, 13370, 13372)
_RIGHT_EYE = (9, 30, 44, 72, 1088, 1092, 1098, 1101, 4855, 4870, 6756, 6762, 6763, 6767, 6772, 6776)

# by region (`regions.REGIONS`)
RIMS: Final[Mapping[str, Indices]] = {
    "mouth": np.array(_MOUTH),
    "left_eye": np.array(_LEFT_EYE),
    "right_eye": np.array(_RIGHT_EYE),
}
