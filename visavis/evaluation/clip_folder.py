"""The shards of a folder of clips that an evaluation reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from visavis.evaluation.errors import EvaluationError
from visavis.training.data.clip_plan import Split


def shards_of(folder: Path, split: Split) -> list[Path]:
    """Those of a split, or all of a folder that has no splits. Raises EvaluationError when there are none."""
    place = folder / split if (folder / split).is_dir() else folder
    shards = sorted(place.glob("*.tar"))
    if not shards:
        raise EvaluationError(f"no clips in {place}: `visavis data render --out {folder}` renders some")
    return shards


def about(folder: Path, split: Split, clips: int) -> dict[str, Any]:
    """What a report says about its data."""
    settings = folder / "dataset.json"
    dataset = json.loads(settings.read_text()) if settings.is_file() else None
    return {"folder": str(folder), "split": split, "clips": clips, "dataset": dataset}
