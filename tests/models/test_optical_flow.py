"""Optical flow: finds shifts that are known, and moves pictures back by them."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from visavis.models.optical_flow import estimate_flow, warp

SIZE = 128


def smooth_picture(seed: int = 0) -> Tensor:
    """[1, 1, H, W] in [-1, 1] with something to see at every place."""
    noise = torch.randn(1, 1, SIZE // 8, SIZE // 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, size=SIZE, mode="bicubic").clamp(-2.5, 2.5) / 2.5


def constant_flow(x: float, y: float) -> Tensor:
    return torch.tensor([x, y]).view(1, 2, 1, 1).expand(1, 2, SIZE // 8, SIZE // 8)


def test_a_flow_says_where_in_the_reference_a_place_is_found() -> None:
    reference = torch.zeros(1, 3, SIZE, SIZE)
    reference[:, :, 40, 60] = 1.0
    found = warp(reference, constant_flow(4.0, -3.0))
    assert found[0, 0].nonzero().tolist() == [[43, 56]]
    half = warp(reference, constant_flow(0.5, 0.0))
    torch.testing.assert_close(half[0, 0, 40, 59:61], torch.tensor([0.5, 0.5]))


def test_nothing_moves_without_flow_and_borders_go_on() -> None:
    picture = smooth_picture()
    torch.testing.assert_close(warp(picture, constant_flow(0.0, 0.0)), picture, atol=1e-5, rtol=0)
    beyond = warp(picture, constant_flow(-2.0 * SIZE, 0.0))
    torch.testing.assert_close(beyond, picture[..., :1].expand_as(picture), atol=1e-5, rtol=0)


def test_smaller_pictures_are_moved_by_the_same_share() -> None:
    picture, flow = smooth_picture(), constant_flow(8.0, 4.0)
    small = F.avg_pool2d(picture, 4)
    torch.testing.assert_close(
        warp(small, flow)[..., 2:-4, 2:-4], F.avg_pool2d(warp(picture, flow), 4)[..., 2:-4, 2:-4]
    )


@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (1.5, -0.7), (-4.0, 3.0), (6.0, 0.0)])
def test_known_shifts_are_found(x: float, y: float) -> None:
    reference = smooth_picture()
    picture = warp(reference, constant_flow(x, y))
    references = torch.cat([reference, picture], dim=1)
    flow = estimate_flow(picture[:, 0], references)
    assert flow.shape == (1, 2, 2, SIZE // 8, SIZE // 8)
    inner = flow[0, :, :, 2:-2, 2:-2].mean(dim=(2, 3))
    torch.testing.assert_close(inner, torch.tensor([[x, y], [0.0, 0.0]]), atol=0.15, rtol=0.05)
    back = warp(reference, flow[:, 0])
    before, after = ((other - picture)[..., 16:-16, 16:-16].square().mean() for other in (reference, back))
    assert after < 0.02 * before or before == 0


def test_what_cannot_be_seen_to_move_does_not() -> None:
    flow = estimate_flow(torch.zeros(2, 64, 64), torch.full((2, 1, 64, 64), 0.5))
    assert torch.equal(flow, torch.zeros(2, 1, 2, 8, 8))
