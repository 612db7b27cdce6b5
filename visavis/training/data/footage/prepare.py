"""`visavis data prepare`: a folder of videos becomes a data set, video by video, resumed where it stopped.

DIR/dataset.json                   what the folder holds: limits, share of tests, detectors' protocol
DIR/train/train-SHA.tar ...        the clips of one video each, named by the video's content
DIR/test/test-SHA.tar ...          of other videos; with people by folder, of other people
DIR/videos/SHA.json                what became of each video
DIR/report.json, DIR/report.txt    the same of all videos
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from visavis.training.data.clip_plan import Split
from visavis.training.data.clips import Clip, clip_to_files
from visavis.training.data.dataset_folder import DatasetError, add_shard, claim_folder, replace_file
from visavis.training.data.footage.detectors import PROTOCOL, FindsFaces
from visavis.training.data.footage.examine import Dropped, Kept, Limits, examine
from visavis.training.data.footage.report import Stretch, VideoReport, summary, table
from visavis.training.data.footage.stretches import stretches
from visavis.training.data.footage.video import VideoError, read_frames, read_sound
from visavis.training.data.shards import ClipFiles, shard_is_whole

FOOTAGE_FORMAT = 1
_VIDEOS = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm"})

People = Literal["video", "folder"]


@dataclass(frozen=True, slots=True)
class FootageSettings:
    """How footage is prepared. `people` says who may be the same person: one a video, or one a folder of videos."""

    limits: Limits
    people: People
    # of the people, by chance that their name decides
    test_share: float


@dataclass(frozen=True, slots=True)
class Prepared:
    """After a video: what became of it, and how many of how many are done."""

    report: VideoReport
    already_there: bool
    videos_done: int
    videos: int


def prepare_footage(videos: Path, folder: Path, settings: FootageSettings, finder: FindsFaces) -> Generator[Prepared]:
    """Prepares all videos below a folder that are not there yet, and writes the report at the end.

    A video that cannot be read is reported, not fatal; a copy of another is left out. Raises DatasetError for a folder
    without videos, a folder of other settings and a full disk, DetectorError when the detectors fail.
    """
    paths = sorted(path for path in videos.rglob("*") if path.suffix.lower() in _VIDEOS and path.is_file())
    if not paths:
        raise DatasetError(f"no videos in {videos}: it needs files like .mp4, .mkv, .mov or .webm")
    claim_folder(folder, _made_from(settings))
    reports: list[VideoReport] = []
    seen: set[str] = set()
    for done, path in enumerate(paths, start=1):
        source = _source(path, path.relative_to(videos).as_posix(), settings)
        there = None
        if isinstance(source, _Source):
            if source.sha256 in seen:
                source = source.left_out("a copy of another video")
            else:
                seen.add(source.sha256)
                there = _finished(folder, source)
        reports.append(
            source if isinstance(source, VideoReport) else there or _prepare(folder, source, settings, finder)
        )
        yield Prepared(reports[-1], there is not None, done, len(paths))
    _write_text(folder / "report.json", json.dumps(summary(reports), indent=1, ensure_ascii=False))
    _write_text(folder / "report.txt", table(reports))


def split_of_person(person: str, settings: FootageSettings) -> Split:
    """Which split a person's videos belong to: their name decides, so more videos change nothing."""
    chance = int.from_bytes(hashlib.sha256(person.encode()).digest()[:8]) / 2**64
    return "test" if chance < settings.test_share else "train"


@dataclass(frozen=True, slots=True)
class _Source:
    path: Path
    name: str
    sha256: str
    person: str
    split: Split

    @property
    def stem(self) -> str:
        return self.sha256[:16]

    def shard(self, folder: Path) -> Path:
        return folder / self.split / f"{self.split}-{self.stem}.tar"

    def left_out(self, fault: str) -> VideoReport:
        return VideoReport(self.name, self.sha256, self.split, self.person, (), fault)

    def key(self, first_frame: int) -> str:
        return f"{self.stem}-{first_frame:07d}"


def _source(path: Path, name: str, settings: FootageSettings) -> _Source | VideoReport:
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return VideoReport(name, "", "train", "", (), fault=f"it cannot be read: {error.strerror}")
    # a video's content is its only name that stays when it is moved
    person = sha256[:16] if settings.people == "video" else Path(name).parent.as_posix()
    return _Source(path, name, sha256, person, split_of_person(person, settings))


def _finished(folder: Path, source: _Source) -> VideoReport | None:
    """The report of a video that a run before has prepared, if its clips are whole."""
    try:
        record = json.loads(_record(folder, source).read_text())
        report = VideoReport(**{**record, "stretches": tuple(Stretch(**item) for item in record["stretches"])})
    except (KeyError, OSError, TypeError, ValueError):
        return None
    keys = [source.key(stretch.first_frame) for stretch in report.stretches if stretch.verdict == "kept"]
    if (report.video, report.person, report.split) != (source.name, source.person, source.split):
        return None  # moved since: the records of its clips name another place
    return report if not keys or shard_is_whole(source.shard(folder), keys) else None


def _prepare(folder: Path, source: _Source, settings: FootageSettings, finder: FindsFaces) -> VideoReport:
    found: list[Stretch] = []
    faults: list[str] = []
    clips = _clips(source, settings, finder, found, faults)
    first = next(clips, None)
    if first is not None:
        add_shard(source.shard(folder), _with_first(first, clips))
    report = VideoReport(source.name, source.sha256, source.split, source.person, tuple(found), fault="; ".join(faults))
    _write_text(_record(folder, source), json.dumps(asdict(report), indent=1, ensure_ascii=False))
    return report


def _with_first(first: ClipFiles, others: Iterator[ClipFiles]) -> Iterator[ClipFiles]:
    yield first
    yield from others


def _clips(
    source: _Source, settings: FootageSettings, finder: FindsFaces, found: list[Stretch], faults: list[str]
) -> Iterator[ClipFiles]:
    """The good clips of a video; notes every stretch in `found`, and in `faults` why reading ended."""
    try:
        sound_S = read_sound(source.path)
        for stretch in stretches(read_frames(source.path), settings.limits.frames):
            first_frame = stretch[0].number
            verdict = examine(stretch, sound_S, finder, settings.limits)
            if isinstance(verdict, Dropped):
                found.append(Stretch(first_frame, len(stretch), verdict.reason, verdict.detail))
            else:
                found.append(Stretch(first_frame, len(stretch), "kept"))
                yield clip_to_files(_clip(source, first_frame, verdict, settings))
    except VideoError as error:
        faults.append(str(error))


def _clip(source: _Source, first_frame: int, kept: Kept, settings: FootageSettings) -> Clip:
    return Clip(
        key=source.key(first_frame),
        frames_FHW3=kept.frames_FHW3,
        samples_S=kept.samples_S,
        actions=(),
        curves_FA=np.zeros((len(kept.frames_FHW3), 0), dtype=np.float32),
        head_F6=None,
        ellipses_FE4=kept.ellipses_FE4,
        phonemes=(),
        record={
            "format": FOOTAGE_FORMAT,
            "plan": {"split": source.split, "identity": source.person, "voice": source.person},
            "source": {
                "video": source.name,
                "sha256": source.sha256,
                "first_frame": first_frame,
                "picture_size": kept.picture_size,
                "square": asdict(kept.square),
            },
        },
    )


def _made_from(settings: FootageSettings) -> dict[str, Any]:
    return {"footage_format": FOOTAGE_FORMAT, "detectors_protocol": PROTOCOL, **asdict(settings)}


def _record(folder: Path, source: _Source) -> Path:
    return folder / "videos" / f"{source.stem}.json"


def _write_text(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text)
    except OSError as error:
        raise DatasetError(f"cannot write {path}: {error.strerror}") from error
