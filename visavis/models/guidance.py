"""Joint classifier-free guidance: speech and identity are guided together (paper section 3.4).

The formula is from READ, which we could not obtain; this is the usual one with both conditions dropped together.
A guidance is any function of the two velocities, so another one can take its place.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

# (velocity with speech and ID, velocity with neither) -> guided velocity
Guidance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def joint_guidance(scale: float) -> Guidance:
    """`v(none) + scale * (v(speech, ID) - v(none))`; the paper's scale is 6. A scale of 1 gives v(speech, ID)."""

    def guide(conditional: torch.Tensor, unconditional: torch.Tensor) -> torch.Tensor:
        return torch.lerp(unconditional, conditional, scale)

    return guide
