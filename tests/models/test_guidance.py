"""Joint guidance."""

from __future__ import annotations

import torch

from visavis.models.guidance import joint_guidance


def test_it_extrapolates_from_the_unconditional_velocity() -> None:
    conditional, unconditional = torch.randn(3, 4), torch.randn(3, 4)
    expected = unconditional + 6.0 * (conditional - unconditional)
    torch.testing.assert_close(joint_guidance(6.0)(conditional, unconditional), expected)


def test_a_scale_of_one_gives_the_conditional_velocity_exactly() -> None:
    conditional, unconditional = torch.randn(3, 4), torch.randn(3, 4)
    assert torch.equal(joint_guidance(1.0)(conditional, unconditional), conditional)
