"""How many sessions a server sustains: raises them until a promise breaks, then closes in; the deciding is pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from visavis.bench.load_figures import LoadFigures


@dataclass(frozen=True, slots=True)
class SearchStep:
    """One run of the search. broken: in which ways promises were missed; empty when all were kept."""

    sessions: int
    figures: LoadFigures
    broken: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CapacityResult:
    """What a search found.

    sustained_sessions: the most with which every promise was kept, 0 when not even one. reached_limit: nothing broke up
    to the most that were tried. client_was_bottleneck: a step broke while the client was too slow itself, so that the
    server may sustain more.
    """

    sustained_sessions: int
    reached_limit: bool
    client_was_bottleneck: bool
    steps: tuple[SearchStep, ...]


def next_sessions(kept: Sequence[int], broken: Sequence[int], most: int) -> int | None:
    """How many sessions to try next; None when the answer is found.

    Doubles until a number breaks, then halves the gap between the most that was kept and the least that broke.
    """
    best, worst = max(kept, default=0), min(broken, default=most + 1)
    if best + 1 >= worst:
        return None
    return min(2 * best or 1, most) if not broken else (best + worst) // 2


def find_capacity(most: int, measure: Callable[[int], SearchStep]) -> CapacityResult:
    """Searches between 1 and `most` sessions. A run that was stopped ends the search."""
    steps: list[SearchStep] = []
    while (sessions := _next(steps, most)) is not None:
        steps.append(measure(sessions))
        if steps[-1].figures.stopped:
            break
    return capacity_result(steps, most)


def capacity_result(steps: Sequence[SearchStep], most: int) -> CapacityResult:
    """What these steps show. A stopped one shows nothing."""
    counted = [step for step in steps if not step.figures.stopped]
    kept = [step.sessions for step in counted if not step.broken]
    return CapacityResult(
        sustained_sessions=max(kept, default=0),
        reached_limit=max(kept, default=0) == most,
        client_was_bottleneck=any(step.broken and step.figures.client_was_bottleneck for step in counted),
        steps=tuple(steps),
    )


def _next(steps: Sequence[SearchStep], most: int) -> int | None:
    kept = [step.sessions for step in steps if not step.broken]
    return next_sessions(kept, [step.sessions for step in steps if step.broken], most)
