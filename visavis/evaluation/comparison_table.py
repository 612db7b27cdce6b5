"""Writes the comparison as Markdown: all rows, the paper's Tables 2 and 3 beside them, and which orderings hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final, Literal

from visavis.evaluation.comparison import Result
from visavis.evaluation.comparison_rows import TITLES, Row, RowName

# up: more is better, down: less is, one: 1 is best, level: no direction
Direction = Literal["up", "down", "one", "level"]
_ARROWS: Final[Mapping[Direction, str]] = {"up": " ↑", "down": " ↓", "one": " (1)", "level": ""}

COLUMNS: Final[Mapping[str, Direction]] = {
    "lip_gap_correlation": "up",
    "lip_lag_frames": "level",
    "own_sync_confidence": "up",
    "own_sync_distance": "down",
    "identity_cosine": "up",
    "own_portrait_nearest": "up",
    "face_embedding_frechet": "down",
    "boundary_jerk": "one",
    "seam_ratio": "one",
    "sharpness_ratio": "one",
    "colour_shift": "down",
    "colour_drift": "down",
    "landmark_error_px": "down",
    "blinks_per_minute": "level",
    "FID": "down",
    "FVD": "down",
    "E-FID": "down",
    "Sync-C": "up",
    "Sync-D": "down",
}

# REST, Tables 2 and 3: FID, FVD, Sync-C on HDTF at 512 x 512.
_PAPER: Final[Sequence[tuple[RowName, str, tuple[float, float, float]]]] = (
    ("rest", "Full ID-Context, full ASD", (14.597, 219.870, 8.335)),
    ("no_sink", "w/o ID-Sink", (19.362, 294.692, 8.345)),
    ("no_context", "w/o Context-Cache", (19.656, 271.508, 6.909)),
    ("no_smoothness", "w/o Smooth", (14.646, 221.525, 8.264)),
    ("no_contrastive", "w/o Contrastive", (15.278, 219.881, 8.190)),
    ("no_asd", "w/o ASD", (15.950, 228.815, 7.970)),
)
# What the fast preset may lose of any measure.
_FAST_SHARE: Final = 0.05
_BESIDE: Final = ("face_embedding_frechet", "boundary_jerk", "own_sync_confidence", "lip_gap_correlation")


@dataclass(frozen=True, slots=True)
class Claim:
    """What the paper's tables say: by this measure, REST is better than `row`."""

    row: RowName
    measure: str
    words: str


CLAIMS: Final = (
    Claim("no_sink", "identity_cosine", "without sink, identity drifts"),
    Claim("no_sink", "face_embedding_frechet", "without sink, faces are others"),
    Claim("no_sink", "colour_shift", "without sink, colours degrade"),
    Claim("no_context", "boundary_jerk", "without context, borders jerk"),
    Claim("no_context", "seam_ratio", "without context, borders show"),
    Claim("no_context", "own_sync_confidence", "without context, sync falls"),
    Claim("no_context", "lip_gap_correlation", "without context, lips follow less"),
    Claim("no_asd", "own_sync_confidence", "ASD helps sync"),
    Claim("no_asd", "face_embedding_frechet", "ASD helps the faces"),
    Claim("no_asd", "boundary_jerk", "ASD helps borders"),
    Claim("no_contrastive", "own_sync_confidence", "the contrastive term helps sync"),
    Claim("no_contrastive", "face_embedding_frechet", "the contrastive term helps the faces"),
    Claim("no_smoothness", "boundary_jerk", "the smoothness term helps motion"),
)


def comparison_page(rows: Sequence[Row], results: Sequence[Result], plots: Sequence[str]) -> str:
    """The whole page; `plots` are paths of pictures beside it. Rows without results are named with what they lack."""
    lines = ["# Comparison", "", *_preface(rows, results)]
    for frames in sorted({result.frames for result in results}):
        lines += ["", f"## {frames} frames", "", *_table(rows, results, frames)]
    lines += ["", "## Beside the paper", "", *_beside_paper(results)]
    lines += ["", "## Orderings", "", *_orderings(results)]
    lines += ["", "## Fast preset", "", *_fast(results)]
    if plots:
        lines += ["", "## Over time", "", *(f"![{name}]({name})" for name in plots)]
    return "\n".join(lines) + "\n"


def _preface(rows: Sequence[Row], results: Sequence[Result]) -> Iterator[str]:
    seeds = sorted({result.seed for result in results})
    clips = ", ".join(f"{count} of {frames} frames" for frames, count in sorted({(r.frames, r.clips) for r in results}))
    yield f"Held-out people and voices: {clips}. Seeds: {', '.join(map(str, seeds))}. A figure is the mean over seeds,"
    yield "± half of the range between them. What each measure is: [evaluation](../docs/evaluation.md)."
    missing = [row for row in rows if row.why_missing]
    if missing:
        yield ""
        yield "Missing, so not in the tables:"
        yield ""
        yield from (f"- **{TITLES[row.name]}**: {row.why_missing}" for row in missing)
    absent = _unmeasured(results)
    if absent:
        yield ""
        yield "Not measured:"
        yield ""
        yield from (f"- `{name}`: {why}" for name, why in absent.items())


def _table(rows: Sequence[Row], results: Sequence[Result], frames: int) -> Iterator[str]:
    here = [result for result in results if result.frames == frames]
    columns = [name for name in COLUMNS if any(_known(result, name) for result in here)]
    yield "| | retrained | " + " | ".join(f"`{name}`{_ARROWS[COLUMNS[name]]}" for name in columns) + " |"
    yield "|---|---|" + "---:|" * len(columns)
    for row in rows:
        own = [result for result in here if result.row == row.name]
        if own:
            cells = " | ".join(_cell(own, name) for name in columns)
            yield f"| {TITLES[row.name]} | {row.training} | {cells} |"


def _beside_paper(results: Sequence[Result]) -> Iterator[str]:
    """Other data, another size, other networks: only the order of the rows can be compared."""
    yield "The paper's FID, FVD and Sync-C are on HDTF at 512 x 512, by networks that judge real faces; our clips show"
    yield "rendered people, and what has another name is a proxy. Compare the order of rows, not the figures."
    yield ""
    longest = max((result.frames for result in results), default=0)
    originals = [name for name in ("FID", "FVD", "Sync-C") if any(_known(result, name) for result in results)]
    ours = [*originals, *_BESIDE]
    heads = " | ".join(f"ours: `{name}`{_ARROWS[COLUMNS[name]]}" for name in ours)
    yield f"| paper | FID ↓ | FVD ↓ | Sync-C ↑ | {heads} |"
    yield "|---|---:|---:|---:|" + "---:|" * len(ours)
    for name, words, figures in _PAPER:
        own = [result for result in results if result.row == name and result.frames == longest]
        cells = " | ".join(_cell(own, measure) for measure in ours)
        yield f"| {words} | " + " | ".join(f"{figure:.3f}" for figure in figures) + f" | {cells} |"


def _orderings(results: Sequence[Result]) -> Iterator[str]:
    """Whether each claim holds: in the mean, and in how many seeds."""
    yield "| claim | frames | measure | REST | ablated | holds | seeds in which it does |"
    yield "|---|---:|---|---:|---:|---|---:|"
    for claim in CLAIMS:
        for frames in sorted({result.frames for result in results}):
            full, ablated = (_by_seed(results, name, frames, claim.measure) for name in ("rest", claim.row))
            seeds = sorted(full.keys() & ablated.keys())
            if not seeds:
                continue
            direction = COLUMNS[claim.measure]
            wins = [_loss(full[seed], direction) < _loss(ablated[seed], direction) for seed in seeds]
            means = fmean(full[seed] for seed in seeds), fmean(ablated[seed] for seed in seeds)
            holds = "yes" if _loss(means[0], direction) < _loss(means[1], direction) else "**no**"
            figures = f"{means[0]:.4g} | {means[1]:.4g}"
            where = f"{claim.words} | {frames} | `{claim.measure}`"
            yield f"| {where} | {figures} | {holds} | {sum(wins)} of {len(seeds)} |"


def _fast(results: Sequence[Result]) -> Iterator[str]:
    """By how much the fast preset is worse than REST; by how far from 1 where 1 is best."""
    yield "| measure | frames | REST | fast | worse by | within 5 % |"
    yield "|---|---:|---:|---:|---:|---|"
    for measure, direction in COLUMNS.items():
        for frames in sorted({result.frames for result in results}) if direction != "level" else ():
            full, fast = (_by_seed(results, name, frames, measure) for name in ("rest", "fast"))
            if not full or not fast:
                continue
            one, other = fmean(full.values()), fmean(fast.values())
            scale = 1.0 if direction == "one" else abs(one)
            worse = (_loss(other, direction) - _loss(one, direction)) / scale if scale else 0.0
            words = "yes" if worse <= _FAST_SHARE else "**no**"
            yield f"| `{measure}` | {frames} | {one:.4g} | {other:.4g} | {100 * worse:.1f} % | {words} |"


def _loss(value: float, direction: Direction) -> float:
    """Less is better."""
    return {"up": -value, "down": value, "one": abs(value - 1), "level": 0.0}[direction]


def _by_seed(results: Sequence[Result], row: str, frames: int, measure: str) -> dict[int, float]:
    chosen = (result for result in results if (result.row, result.frames) == (row, frames))
    return {result.seed: value for result in chosen if (value := _known(result, measure)) is not None}


def _cell(results: Sequence[Result], measure: str) -> str:
    values = [value for result in results if (value := _known(result, measure)) is not None]
    if not values:
        return "–"
    spread = (max(values) - min(values)) / 2
    return f"{fmean(values):.3f}" + (f" ± {spread:.3f}" if len(values) > 1 else "")


def _known(result: Result, measure: str) -> float | None:
    value: float | None = result.measures.get(measure, {}).get("value")
    return value


def _unmeasured(results: Sequence[Result]) -> dict[str, str]:
    """Measures that no row has, and why."""
    reasons: dict[str, str] = {}
    for name in COLUMNS:
        if results and all(_known(result, name) is None for result in results):
            reasons[name] = results[0].measures.get(name, {}).get("not_measured", "")
    return {name: why for name, why in reasons.items() if why}
