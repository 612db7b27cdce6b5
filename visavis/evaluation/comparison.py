"""Runs the comparison: every row on the same clips, for every length and seed, and keeps what it found.

RUN/results/ROW-FRAMES-SEED.json; RUN/faces: landmarks. What is there and of the same weights and clips is not made
again, so a comparison that was stopped goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from visavis.evaluation.comparison_rows import Row
from visavis.evaluation.judges import Judges
from visavis.evaluation.originals.measures import OriginalMeasures
from visavis.evaluation.portraits import portraits_of
from visavis.evaluation.report import measures_as_json
from visavis.evaluation.talk_measures import TalkMeasures
from visavis.training.data.clips import Clip


@dataclass(frozen=True, slots=True)
class ClipSet:
    """Held-out clips of one length, portrait included."""

    frames: int
    clips: Sequence[Clip]


@dataclass(frozen=True, slots=True)
class Result:
    """What one row gave at one length with one seed. `measures` as in a report, `over_time` a value a second."""

    row: str
    training: str
    frames: int
    seed: int
    clips: int
    fingerprint: str
    measures: dict[str, dict[str, Any]]
    over_time: dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What all rows share."""

    run: Path
    sets: Sequence[ClipSet]
    seeds: Sequence[int]
    judges: Judges
    originals: Callable[[], OriginalMeasures]

    def of(self, row: Row, announce: Callable[[str], None]) -> list[Result]:
        """The row's results, made where they are not there. A row without a maker has none."""
        if row.make is None:
            return []
        seeds = self.seeds if row.seeded else self.seeds[:1]
        return [self._result(row, part, seed, announce) for part in self.sets for seed in seeds]

    def _result(self, row: Row, part: ClipSet, seed: int, announce: Callable[[str], None]) -> Result:
        path = self.run / "results" / f"{row.name}-{part.frames}-seed{seed}.json"
        fingerprint = self._fingerprint(row, part.clips)
        if path.is_file():
            kept = Result(**json.loads(path.read_text()))
            if kept.fingerprint == fingerprint:
                return kept
        assert row.make is not None
        collected = TalkMeasures(self.judges, portraits_of(part.clips, self.judges), self.originals())
        for number, clip in enumerate(part.clips, start=1):
            announce(f"{row.name}, {part.frames} frames, seed {seed}: clip {number} of {len(part.clips)}")
            collected.add(clip, row.make(clip, seed))
        result = Result(
            row=row.name,
            training=row.training,
            frames=part.frames,
            seed=seed,
            clips=len(part.clips),
            fingerprint=fingerprint,
            measures=measures_as_json(collected.results()),
            over_time=collected.over_time(),
        )
        _write(path, result)
        return result

    def _fingerprint(self, row: Row, clips: Iterable[Clip]) -> str:
        digest = hashlib.sha256(f"{row.fingerprint} {json.dumps(self.judges.about(), sort_keys=True)}".encode())
        for clip in clips:
            digest.update(clip.key.encode())
            digest.update(clip.frames_FHW3[0].tobytes())
            digest.update(clip.samples_S.tobytes())
        return digest.hexdigest()


def _write(path: Path, result: Result) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = asdict(result)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    partial.replace(path)
