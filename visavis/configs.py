"""Where a preset's settings are: configs/*.toml in the repository, the package data `visavis/presets` in a wheel."""

from __future__ import annotations

from pathlib import Path

_LIBRARY = Path(__file__).resolve().parent
# The wheel's place first: beside an installed package any `configs` folder may lie, in the repository only ours.
_FOLDERS = (_LIBRARY / "presets", _LIBRARY.parent / "configs")


def config_path(name: str) -> Path:
    """Returns the TOML file of preset `name`, for example "mini".

    Raises:
        ValueError: there is no such preset; the message names those there are.
    """
    names = config_names()
    if name not in names:
        raise ValueError(f"no preset is called {name!r}; there are: {', '.join(names)}")
    return _folder() / f"{name}.toml"


def config_names() -> list[str]:
    """Returns the names of all presets, sorted."""
    return sorted(path.stem for path in _folder().glob("*.toml"))


def _folder() -> Path:
    return next((folder for folder in _FOLDERS if folder.is_dir()), _FOLDERS[-1])
