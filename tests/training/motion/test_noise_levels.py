"""The chunk-wise asynchronous noise scheduler (paper section C.6.1)."""

from __future__ import annotations

import numpy as np
import pytest

from visavis.training.motion.noise_levels import LEVELS, SEGMENTS, NoiseOptions, draw_levels, draw_schedule


def test_levels_come_from_their_quarters_and_rise() -> None:
    options = NoiseOptions(shift=2.5857, asynchronous=1.0, uniform=0.0)
    levels = draw_levels(np.random.default_rng(0), 4_000, options)
    assert levels.shape == (4_000, SEGMENTS)
    assert bool((np.diff(levels, axis=1) > 0).all())
    # the quarters of the distribution itself, each but for the 1,000 levels that were drawn
    quartiles = 1 / (1 + np.exp(-(np.log(2.5857) + np.array([-0.6745, 0.0, 0.6745]))))
    assert np.quantile(levels[:, :-1], 1.0, axis=0) == pytest.approx(quartiles, abs=0.04)
    assert np.quantile(levels[:, 1:], 0.0, axis=0) == pytest.approx(quartiles, abs=0.04)


def test_half_of_the_samples_have_one_level_for_all() -> None:
    levels = draw_levels(np.random.default_rng(1), 4_000, NoiseOptions(2.5857, 0.5, 0.0))
    same = (levels == levels[:, :1]).all(axis=1)
    assert same.mean() == pytest.approx(0.5, abs=0.03)
    # whichever way, the middle of all levels is that of the shifted distribution
    assert np.median(levels[same]) == pytest.approx(2.5857 / 3.5857, abs=0.02)


def test_a_schedule_ascends_and_its_even_share_reaches_pure_noise() -> None:
    chance = np.random.default_rng(2)
    plain, mixed = draw_schedule(chance, 2.5857, 0.0), draw_schedule(chance, 2.5857, 0.2)
    for schedule in (plain, mixed):
        assert len(schedule) == LEVELS
        assert bool((np.diff(schedule) >= 0).all())
    assert plain[-1] < 0.997
    assert 0.99 < mixed[-1] <= 1.0
    assert mixed[0] < 0.02
