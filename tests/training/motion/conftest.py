"""One world for all tests of a module's run."""

from __future__ import annotations

import pytest

from tests.training.motion.talkers import World, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))
