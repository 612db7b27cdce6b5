"""What the tests of the training data share: a made-up asset folder and anny's body, each made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.made_up_assets import make_assets
from visavis.training.data.body import Body, load_body


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_assets(tmp_path_factory.mktemp("assets"))


@pytest.fixture(scope="session")
def body() -> Body:
    return load_body()
