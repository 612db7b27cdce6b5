"""Whom a clip shows, and whether anybody speaks in it."""

from __future__ import annotations

from typing import Any

from visavis.training.data.clips import Clip


def person_of(clip: Clip) -> object:
    """Of clips that do not say, everybody is another."""
    return _plan(clip).get("identity", clip.key)


def somebody_speaks(clip: Clip) -> bool:
    """A rendered clip in silence says so; its sound may still have a room's noise."""
    return bool(_plan(clip).get("voice", "unknown")) and bool(clip.samples_S.any())


def _plan(clip: Clip) -> dict[str, Any]:
    plan: dict[str, Any] = clip.record.get("plan", {})
    return plan
