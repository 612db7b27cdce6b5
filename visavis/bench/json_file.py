"""Writes results as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any


def write_json(result: Any, path: Path) -> None:
    """Every field of a dataclass; times in seconds, sizes in bytes. A figure that does not exist (NaN) is null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(json_ready(result), indent=2, allow_nan=False) + "\n")


def json_ready(value: Any) -> Any:
    """Dataclasses as objects, tuples as lists, and null for numbers that JSON does not have."""
    if is_dataclass(value) and not isinstance(value, type):
        return json_ready(asdict(value))
    if isinstance(value, dict):
        return {str(key): json_ready(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
