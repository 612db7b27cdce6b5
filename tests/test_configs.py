"""Presets are found by name, and only by the name of a preset."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from visavis import configs


@pytest.mark.parametrize("name", ["tiny", "mini", "base"])
def test_the_presets_of_the_design_are_found(name: str) -> None:
    assert name in configs.config_names()
    assert tomllib.loads(configs.config_path(name).read_text())


@pytest.mark.parametrize("name", ["", "none", "../pyproject", "mini.toml", "/etc/hosts", "MINI"])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match="mini"):
        configs.config_path(name)


def test_an_installed_package_does_not_look_beside_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside an installed `visavis` any other distribution may have put a folder `configs`."""
    packaged, beside = tmp_path / "visavis" / "presets", tmp_path / "configs"
    for folder, name in ((packaged, "ours"), (beside, "theirs")):
        folder.mkdir(parents=True)
        (folder / f"{name}.toml").touch()
    monkeypatch.setattr(configs, "_FOLDERS", (packaged, beside))
    assert configs.config_names() == ["ours"]
