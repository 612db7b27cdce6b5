"""Every test draws the same numbers, whichever ran before it."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def same_draws() -> None:
    torch.manual_seed(0)
