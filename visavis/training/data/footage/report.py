"""What was kept of footage, and what was dropped and why: for programs (JSON) and for people (a table)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from visavis.training.data.clip_plan import Split
from visavis.training.data.footage.examine import REASONS


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of a video: its first frame at 25 per second, and the reason (of REASONS) it was dropped or "kept"."""

    first_frame: int
    frames: int
    verdict: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class VideoReport:
    """What became of one video. `fault` is why it could not be read, or not to its end; empty for a good one."""

    video: str
    sha256: str
    split: Split
    person: str
    stretches: tuple[Stretch, ...]
    fault: str = ""

    @property
    def kept(self) -> int:
        """The number of clips."""
        return sum(stretch.verdict == "kept" for stretch in self.stretches)


def summary(videos: Sequence[VideoReport]) -> dict[str, Any]:
    """Everything, as report.json has it: clips by split, dropped stretches by reason, and each video."""
    verdicts = Counter(stretch.verdict for video in videos for stretch in video.stretches)
    return {
        "videos": len(videos),
        "videos_with_faults": sum(bool(video.fault) for video in videos),
        "clips": {split: sum(video.kept for video in videos if video.split == split) for split in ("train", "test")},
        "people": len({video.person for video in videos if video.kept}),
        "dropped": {reason: verdicts[reason] for reason in REASONS},
        "each": [asdict(video) for video in videos],
    }


def table(videos: Sequence[VideoReport]) -> str:
    """The same for people: what was dropped by reason, then a line a video."""
    whole = summary(videos)
    lines = [
        f"{whole['videos']} videos, {whole['videos_with_faults']} with faults; {whole['people']} people",
        f"{whole['clips']['train']} clips for training, {whole['clips']['test']} for tests",
        "",
        "dropped stretches",
        *(f"  {whole['dropped'][reason]:6d}  {reason:15s} {meaning}" for reason, meaning in REASONS.items()),
        "",
        "  kept  dropped  split  video",
        *map(_line, videos),
    ]
    return "\n".join(lines) + "\n"


def _line(video: VideoReport) -> str:
    counts = Counter(stretch.verdict for stretch in video.stretches if stretch.verdict != "kept")
    why = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    remarks = "; ".join(part for part in (why, video.fault) if part)
    return f"{video.kept:6d} {counts.total():8d}  {video.split:5s}  {video.video}" + (f": {remarks}" if remarks else "")
