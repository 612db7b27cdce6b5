"""Rotary positions over time, rows and columns, as LTX-Video has them (diffusers `LTXVideoRotaryPosEmbed`).

Legend: N tokens, P channel pairs (half the width).

Times are slots of the attention window, never the time since the session began: slot 0 is the ID latent, then come the
latent frames of the context, then those of the current chunk. So a stream can run for days at the same precision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

# A latent frame is 8 frames at 25 frames per second, a latent cell 32 x 32 pixels.
SECONDS_PER_LATENT_FRAME = 8 / 25
PIXELS_PER_LATENT_CELL = 32
# The extents LTX-Video divides by: 20 s and 2,048 pixels.
BASE_SECONDS = 20
BASE_PIXELS = 2048
THETA = 10000.0


def rotation(slots: Sequence[int], rows: int, columns: int, width: int) -> torch.Tensor:
    """The rotation of every token of the given time slots: `rotation_NP`, complex64, on the CPU.

    `slots` are latent frame positions, `rows` and `columns` the latent grid, `width` the channels of a query before it
    is split into heads. Tokens are ordered by time, row, column.
    """
    seconds = torch.tensor(slots, dtype=torch.float32) * SECONDS_PER_LATENT_FRAME / BASE_SECONDS
    down = torch.arange(rows, dtype=torch.float32) * PIXELS_PER_LATENT_CELL / BASE_PIXELS
    right = torch.arange(columns, dtype=torch.float32) * PIXELS_PER_LATENT_CELL / BASE_PIXELS
    grid_N3 = torch.stack(torch.meshgrid(seconds, down, right, indexing="ij"), dim=-1).flatten(0, 2)
    frequencies = THETA ** torch.linspace(0.0, 1.0, width // 6) * math.pi / 2
    angles_NP = (frequencies[:, None] * (grid_N3[:, None, :] * 2 - 1)).flatten(1)
    # Channels left over when the width is no multiple of 6 stand in front and do not turn.
    still_NP = angles_NP.new_zeros(angles_NP.shape[0], width // 2 - angles_NP.shape[1])
    angles_NP = torch.cat([still_NP, angles_NP], dim=1)
    return torch.polar(torch.ones_like(angles_NP), angles_NP)


def rotate(channels: torch.Tensor, rotation_P: torch.Tensor) -> torch.Tensor:
    """Turns each pair of neighbouring channels; `rotation_P` is broadcast to `[..., width / 2]`. In float32."""
    pairs = torch.view_as_complex(channels.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation_P).flatten(-2).to(channels.dtype)
