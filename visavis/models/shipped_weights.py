"""Trained weights of presets, PRESET/PART: in the repository's folder `weights`, and where images have it copied to.

The wheel brings none, as they are larger than all else: whoever installs it copies them to `INSTALLED_FOLDER`.

`transformer` is REST's, `teacher` READ's; `teacher_speech_ae` is a SpeechAE that was trained further with the teacher.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

ShippedPart = Literal["speech_ae", "transformer", "vae", "teacher", "teacher_speech_ae"]

# The parts of REST: what the services run, and what their fingerprint is of.
REST_PARTS: Final[tuple[ShippedPart, ...]] = ("speech_ae", "transformer", "vae")

INSTALLED_FOLDER: Final = Path(sys.prefix) / "share/visavis/weights"
_FOLDERS = (INSTALLED_FOLDER, Path(__file__).resolve().parents[2] / "weights")

logger = logging.getLogger(__name__)


def shipped_weights(preset: str, part: ShippedPart, arguments: Mapping[str, Any]) -> Path | None:
    """The folder of a preset's trained part, or None where it has none; an installation without any weights says so.

    Raises `ValueError` when it was trained for a network that is not built by `arguments`.
    """
    folder = _part_folder(preset, part)
    if folder is None:
        if not any(place.is_dir() for place in _FOLDERS):
            logger.warning(
                "no trained weights are installed, so the %s of %s has random ones and pictures are noise: "
                "copy weights/%s of visavis' repository to %s",
                part,
                preset,
                preset,
                INSTALLED_FOLDER / preset,
            )
        return None
    config = json.loads((folder / "config.json").read_text())
    differing = [name for name, value in arguments.items() if config.get(name) != value]
    if differing:
        raise ValueError(
            f"the weights in {folder} were trained for another network than the preset {preset} "
            f"({', '.join(differing)} differ): train them again, or remove them for random ones"
        )
    return folder


def preset_folder(preset: str) -> Path:
    """Where a preset's trained parts are, each a folder; need not exist."""
    return next((folder for folder in _FOLDERS if folder.is_dir()), _FOLDERS[-1]) / preset


def shipped_fingerprint(preset: str) -> str:
    """SHA-256 (hex) over all trained files of REST of a preset; empty when it has none."""
    parts = [_part_folder(preset, part) for part in REST_PARTS]
    lines = [_digest(path) for folder in parts if folder for path in sorted(folder.iterdir()) if _counts(path)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest() if lines else ""


def read_parts(preset: str) -> tuple[ShippedPart, ...]:
    """The parts of READ, its SpeechAE first: the teacher's own one where it ships."""
    own_speech_ae = _part_folder(preset, "teacher_speech_ae")
    return ("teacher_speech_ae" if own_speech_ae else "speech_ae", "teacher", "vae")


def all_parts_shipped(preset: str, parts: Sequence[ShippedPart] = REST_PARTS) -> bool:
    """Whether none of these parts of a preset is left random."""
    return all(_part_folder(preset, part) for part in parts)


def _part_folder(preset: str, part: str) -> Path | None:
    folder = preset_folder(preset) / part
    return folder if (folder / "config.json").is_file() else None


def _counts(path: Path) -> bool:
    return path.suffix in (".json", ".safetensors")


def _digest(path: Path) -> str:
    with path.open("rb") as content:
        return f"{path.parent.name}/{path.name} {hashlib.file_digest(content, 'sha256').hexdigest()}"
