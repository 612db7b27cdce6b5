"""Draws how quality goes over time, a line a row, as SVG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from visavis.evaluation.comparison import Result
from visavis.evaluation.comparison_rows import TITLES

_WORDS: Final = {
    "identity_cosine": "cosine with the portrait",
    "sharpness": "sharpness over the truth's",
    "colour_shift": "colour shift from the portrait",
}
_STYLE: Final[dict[Any, Any]] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e6ea",
    "svg.fonttype": "none",
    "svg.hashsalt": "comparison",
}


def draw_over_time(results: Sequence[Result], folder: Path) -> list[str]:
    """Writes FOLDER/MEASURE-FRAMES.svg for everything that was measured over time; returns the names of the files."""
    names = []
    for measure, words in _WORDS.items():
        for frames in sorted({result.frames for result in results}):
            known = [result for result in results if result.frames == frames and measure in result.over_time]
            if known:
                names.append(f"{measure}-{frames}.svg")
                _draw(known, measure, words, folder / names[-1])
    return names


def _draw(results: Sequence[Result], measure: str, words: str, path: Path) -> None:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        axes = figure.subplots()
        for row, title in TITLES.items():
            curves = [result.over_time[measure] for result in results if result.row == row]
            if curves:
                mean = np.mean(curves, axis=0)
                axes.plot(np.arange(len(mean)) + 0.5, mean, label=title, linewidth=1.6)
        axes.set_xlabel("seconds")
        axes.set_ylabel(words)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
