"""Batched against one by one, on the tiny preset."""

import torch

from visavis.bench.batching import Comparison, Turn, compare


def test_both_ways_are_timed_in_every_round() -> None:
    torch.set_num_threads(1)
    for fast in (False, True):
        (pair,) = compare("tiny", [2], 3, fast=fast)
        assert pair.sessions == 2
        assert len(pair.together) == len(pair.one_by_one) == 3
        assert all(turn.wall > 0 and turn.processor > 0 for turn in (*pair.together, *pair.one_by_one))


def test_the_gain_is_the_median_of_the_rounds() -> None:
    together = [Turn(1.0, 1.0), Turn(1.0, 2.0), Turn(2.0, 2.0)]
    one_by_one = [Turn(3.0, 2.0), Turn(1.0, 2.0), Turn(3.0, 3.0)]
    assert Comparison(4, together, one_by_one).row() == "| 4 | 3.00 s | 1.00 s | 1.50 (1.00 to 3.00) | 1.50 |"
