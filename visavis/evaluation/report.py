"""What an evaluation writes: every measure with its interval, and all that is needed to repeat it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from visavis.bench.surroundings import surroundings
from visavis.evaluation.errors import EvaluationError
from visavis.evaluation.estimate import Estimate

Value = Estimate | float | bool


@dataclass(frozen=True, slots=True)
class Measure:
    """One line of a report. `value` is None where it was not measured; then `why_not` says how to get it.

    `bar`: what issue or paper ask for; `lowest` and `highest` bound what meets it.
    """

    name: str
    value: Value | None
    lowest: float | None = None
    highest: float | None = None
    why_not: str = ""

    @property
    def met(self) -> bool | None:
        """Whether it meets its bar; None without a bar or a value."""
        if self.value is None or (self.lowest is None and self.highest is None):
            return None
        number = self.value.value if isinstance(self.value, Estimate) else float(self.value)
        return (self.lowest is None or number >= self.lowest) and (self.highest is None or number <= self.highest)


def write_report(
    path: Path, part: str, measures: Sequence[Measure], data: Mapping[str, Any], model: Mapping[str, Any]
) -> None:
    """Writes JSON. Raises EvaluationError when the disk refuses."""
    content = {
        "part": part,
        "measures": measures_as_json(measures),
        "data": data,
        "model": model,
        "surroundings": asdict(surroundings()),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        partial.replace(path)
    except OSError as error:
        raise EvaluationError(f"cannot write {path}: {error.strerror}") from error


def measures_as_json(measures: Sequence[Measure]) -> dict[str, dict[str, Any]]:
    """By name: value, interval, bar and whether it is met; or why there is no value."""
    return {measure.name: _as_json(measure) for measure in measures}


def table(measures: Sequence[Measure]) -> Iterator[str]:
    """A line for each measure."""
    width = max(len(measure.name) for measure in measures)
    for measure in measures:
        verdict = {None: "", True: "  meets the bar", False: "  below the bar"}[measure.met]
        if measure.value is None:
            yield f"{measure.name:{width}}  not measured: {measure.why_not}"
        elif isinstance(measure.value, Estimate):
            value = measure.value
            yield f"{measure.name:{width}}  {value.value:8.4g}  ({value.low:.4g} to {value.high:.4g}){verdict}"
        else:
            yield f"{measure.name:{width}}  {measure.value:8.4g}{verdict}"


def _as_json(measure: Measure) -> dict[str, Any]:
    if measure.value is None:
        return {"value": None, "not_measured": measure.why_not}
    value = asdict(measure.value) if isinstance(measure.value, Estimate) else {"value": measure.value}
    bar = {
        name: bound for name, bound in (("lowest", measure.lowest), ("highest", measure.highest)) if bound is not None
    }
    return {**value, "bar": bar, "met": measure.met} if bar else value
