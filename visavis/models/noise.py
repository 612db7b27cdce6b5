"""The noise a chunk starts from: a function of the session's seed and the chunk index alone.

So any generator can compute any chunk of a session. It is drawn on the CPU by a counter-based generator whose key is
the pair itself: the same on every device, and no two pairs share a stream.
"""

from __future__ import annotations

import numpy as np
import torch

SEED_LIMIT = 2**64


def chunk_noise(seed: int, chunk_index: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal noise, float32 on the CPU. Raises `ValueError` for a seed or index outside 64 bits."""
    if not 0 <= seed < SEED_LIMIT or not 0 <= chunk_index < SEED_LIMIT:
        raise ValueError(f"seed and chunk index must be 64-bit and not negative, got {seed} and {chunk_index}")
    generator = np.random.Generator(np.random.Philox(key=seed | chunk_index << 64))
    return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))
