"""Figures of a load run in words, the same in the terminal and on the page."""

from __future__ import annotations

import math

from visavis.bench.load_figures import LoadFigures
from visavis.bench.units import milliseconds, percent

_MEBI = 2**20


def load_counts(figures: LoadFigures) -> list[tuple[str, str]]:
    """What is counted, in words."""
    per_second = figures.received_bytes / figures.session_seconds if figures.session_seconds else math.nan
    sessions = ", ".join(f"{count} {name}" for name, count in figures.sessions.items() if count)
    return [
        ("sessions", sessions or "none"),
        ("most at once", str(figures.most_sessions)),
        ("chunks", f"{figures.chunks} ({figures.idle_chunks} idle, {figures.missing_chunks} missing)"),
        ("late chunks", f"{figures.late_chunks} ({percent(1 - figures.in_time_share)})"),
        ("players stood still", f"{figures.stalled_seconds:.2f} s in all"),
        ("audio/video drift", f"{milliseconds(figures.drift_seconds)} at most"),
        ("frames missing, stale", f"{figures.missing_frames}, {figures.stale_frames}"),
        ("received", f"{figures.received_bytes / _MEBI:.1f} MiB, {per_second / 1000:.0f} kB/s a session"),
    ]
