"""Masks of mouth and eyes at any resolution."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.training.data.regions import draw_mask, ellipse_around


def test_an_ellipse_holds_its_points_with_a_margin() -> None:
    points = np.array([[100, 150], [140, 150], [120, 140], [120, 160]], dtype=np.float32)
    x, y, half_width, half_height = ellipse_around(points, "mouth", 256) * 256
    assert (x, y) == pytest.approx((120, 150))
    assert half_width == pytest.approx(25)
    assert half_height == pytest.approx(15)


def test_a_closed_eye_is_still_an_eye() -> None:
    lids = np.array([[100, 150], [120, 150.5], [140, 150]], dtype=np.float32)
    _, _, half_width, half_height = ellipse_around(lids, "left_eye", 256) * 256
    assert half_height == pytest.approx(0.4 * half_width)


@given(st.sampled_from([8, 16, 64, 256]))
def test_a_mask_covers_the_same_area_at_every_resolution(cells: int) -> None:
    ellipses = np.array([[[0.5, 0.6, 0.12, 0.08]]], dtype=np.float32)
    mask = draw_mask(ellipses, cells, cells)
    assert mask.shape == (1, cells, cells)
    assert mask.mean() == pytest.approx(np.pi * 0.12 * 0.08, rel=0.05)


def test_several_regions_are_one_mask() -> None:
    ellipses = np.array([[[0.25, 0.25, 0.1, 0.1], [0.75, 0.75, 0.1, 0.1]]], dtype=np.float32)
    mask = draw_mask(ellipses, 8, 8)[0]
    assert mask[2, 2] > 0
    assert mask[6, 6] > 0
    assert mask[2, 6] == 0
