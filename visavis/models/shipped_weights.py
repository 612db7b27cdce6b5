"""Trained weights of presets: weights/PRESET/PART in the repository, the package data `visavis/weights` in a wheel."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

ShippedPart = Literal["speech_ae", "transformer", "vae"]

_LIBRARY = Path(__file__).resolve().parents[1]
# The wheel's place first, as in `visavis.configs`.
_FOLDERS = (_LIBRARY / "weights", _LIBRARY.parent / "weights")


def shipped_weights(preset: str, part: ShippedPart, arguments: Mapping[str, Any]) -> Path | None:
    """The folder of a preset's trained part, or None where it has none.

    Raises `ValueError` when it was trained for a network that is not built by `arguments`.
    """
    folder = _part_folder(preset, part)
    if folder is None:
        return None
    config = json.loads((folder / "config.json").read_text())
    differing = [name for name, value in arguments.items() if config.get(name) != value]
    if differing:
        raise ValueError(
            f"the weights in {folder} were trained for another network than the preset {preset} "
            f"({', '.join(differing)} differ): train them again, or remove them for random ones"
        )
    return folder


def shipped_fingerprint(preset: str) -> str:
    """SHA-256 (hex) over all trained files of a preset; empty when it has none."""
    parts = [_part_folder(preset, part) for part in get_args(ShippedPart)]
    lines = [_digest(path) for folder in parts if folder for path in sorted(folder.iterdir()) if _counts(path)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest() if lines else ""


def all_parts_shipped(preset: str) -> bool:
    """Whether nothing of a preset is left random."""
    return all(_part_folder(preset, part) for part in get_args(ShippedPart))


def _part_folder(preset: str, part: str) -> Path | None:
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), _FOLDERS[-1]) / preset / part
    return folder if (folder / "config.json").is_file() else None


def _counts(path: Path) -> bool:
    return path.suffix in (".json", ".safetensors")


def _digest(path: Path) -> str:
    with path.open("rb") as content:
        return f"{path.parent.name}/{path.name} {hashlib.file_digest(content, 'sha256').hexdigest()}"
