"""A folder of videos becomes a data set: split by person, resumed, deterministic, with a report."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.footage.made_up_footage import write_video
from tests.training.footage.plain_footage import BLUE, PlainFinder, film, tone
from visavis.training.data import dataset_folder
from visavis.training.data.clips import read_shard
from visavis.training.data.contact_sheet import clips_of, draw_contact_sheet, find_clip
from visavis.training.data.dataset_folder import DatasetError
from visavis.training.data.footage.examine import Limits
from visavis.training.data.footage.prepare import FootageSettings, Prepared, prepare_footage, split_of_person
from visavis.training.data.shards import ClipFiles, write_shard

SETTINGS = FootageSettings(Limits(frames=9, size=64), "video", 0.5)


def prepare(
    videos: Path, folder: Path, settings: FootageSettings = SETTINGS, finder: PlainFinder | None = None
) -> list[Prepared]:
    return list(prepare_footage(videos, folder, settings, finder or PlainFinder()))


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good videos of one person, one of another, one with a stretch of subtitles, and three that are broken."""
    folder = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(("ann/1.mp4", "ann/2.mkv", "bob/1.mp4")):
        write_video(folder / name, film(20, middle=(60, 76 + 2 * number)), tone(20))
    texted = film(18)
    texted[9:, 90:96, 60:100] = BLUE
    write_video(folder / "bob/subtitles.mp4", texted, tone(18))
    (folder / "garbage.mp4").write_bytes(b"no video" * 100)
    half = (folder / "ann/2.mkv").read_bytes()
    (folder / "half.mkv").write_bytes(half[: len(half) // 2])
    (folder / "ann/copy.mkv").write_bytes(half)
    (folder / "notes.txt").write_text("not a video")
    return folder


@pytest.fixture(scope="module")
def prepared(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    prepare(videos, folder)
    return folder


def test_clips_have_all_that_training_needs(prepared: Path) -> None:
    clips = [clip for shard in sorted(prepared.glob("*/*.tar")) for clip in read_shard(shard)]
    assert len(clips) >= 7
    for clip in clips:
        assert clip.frames_FHW3.shape == (9, 64, 64, 3)
        assert clip.samples_S.shape == (8 * 640,)
        assert clip.curves_FA.shape == (9, 0)
        assert clip.head_F6 is None
        assert not clip.actions
        assert clip.mask("mouth", 8, 8).max() > 0
        assert set(clip.record["plan"]) == {"split", "identity", "voice"}
    assert len({clip.key for clip in clips}) == len(clips)
    assert find_clip(prepared, clips[0].key).key == clips[0].key


def test_a_contact_sheet_shows_footage_as_well(prepared: Path, tmp_path: Path) -> None:
    draw_contact_sheet(prepared, tmp_path / "sheet.png", people=3, moments=3)
    assert (tmp_path / "sheet.png").stat().st_size > 1_000
    assert len(list(clips_of(prepared, 9))) == len({clip.record["plan"]["identity"] for clip in clips_of(prepared, 9)})


def test_the_report_says_what_was_left_out_and_why(prepared: Path) -> None:
    report = json.loads((prepared / "report.json").read_text())
    each = {video["video"]: video for video in report["each"]}
    assert report["videos"] == 7
    assert report["dropped"]["text"] == 1
    assert report["dropped"]["cut"] >= 3  # what is left of 20 frames after two clips of 9
    assert [stretch["verdict"] for stretch in each["bob/subtitles.mp4"]["stretches"]] == ["kept", "text"]
    assert "decoded" in each["garbage.mp4"]["fault"]
    assert each["ann/copy.mkv"]["fault"] == "a copy of another video"
    assert sum(report["clips"].values()) == sum(1 for shard in prepared.glob("*/*.tar") for _ in read_shard(shard))
    table = (prepared / "report.txt").read_text()
    assert "7 videos" in table
    assert "garbage.mp4" in table


def test_a_second_run_looks_at_nothing(videos: Path, prepared: Path) -> None:
    before, finder = content(prepared), PlainFinder()
    done = prepare(videos, prepared, finder=finder)
    assert finder.asked == 0
    assert content(prepared) == before
    assert sum(video.already_there for video in done) == len(done) - 1  # but for the copy


def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(videos: Path, prepared: Path, tmp_path: Path) -> None:
    run = prepare_footage(videos, tmp_path, SETTINGS, PlainFinder())
    next(run)
    next(run)
    run.close()
    prepare(videos, tmp_path)
    assert content(tmp_path) == content(prepared)


def test_a_broken_shard_is_made_again(videos: Path, prepared: Path) -> None:
    before = content(prepared)
    shard = sorted(prepared.glob("*/*.tar"))[0]
    shard.write_bytes(shard.read_bytes()[:5_000])
    prepare(videos, prepared)
    assert content(prepared) == before


def test_nobody_trains_and_tests(videos: Path, tmp_path: Path) -> None:
    by_folder = replace(SETTINGS, people="folder")
    prepare(videos, tmp_path, by_folder)
    people: dict[str, set[str]] = {"train": set(), "test": set()}
    for shard in tmp_path.glob("*/*.tar"):
        for clip in read_shard(shard):
            assert clip.record["plan"]["split"] == shard.parent.name
            people[shard.parent.name].add(clip.record["plan"]["identity"])
    assert not people["train"] & people["test"]
    assert people["train"] | people["test"] == {"ann", "bob"}


def test_the_share_of_tests_is_what_was_asked_for() -> None:
    settings = replace(SETTINGS, test_share=0.05)
    tests = sum(split_of_person(f"person {number}", settings) == "test" for number in range(4_000))
    assert tests == pytest.approx(200, abs=45)
    assert {split_of_person("ann", replace(SETTINGS, test_share=share)) for share in (0.0, 1.0)} == {"train", "test"}


def test_a_video_that_comes_later_changes_nothing_before(videos: Path, prepared: Path, tmp_path: Path) -> None:
    more = tmp_path / "videos"
    write_video(more / "zoe/1.mp4", film(10, radius=28), tone(10))
    for path in videos.rglob("*.m*"):
        (more / path.relative_to(videos)).parent.mkdir(parents=True, exist_ok=True)
        (more / path.relative_to(videos)).write_bytes(path.read_bytes())
    prepare(more, tmp_path / "data")
    before, after = content(prepared), content(tmp_path / "data")
    assert {name: after[name] for name in before if name.endswith(".tar")} == {
        name: data for name, data in before.items() if name.endswith(".tar")
    }


def test_other_settings_are_refused(videos: Path, prepared: Path) -> None:
    with pytest.raises(DatasetError, match="another data set"):
        prepare(videos, prepared, replace(SETTINGS, test_share=0.1))


def test_a_folder_without_videos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no videos"):
        prepare(tmp_path, tmp_path / "data")


def test_a_full_disk_is_said(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path, clips: Iterable[ClipFiles]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(dataset_folder, "write_shard", write)
    with pytest.raises(DatasetError, match="disk is full"):
        prepare(videos, tmp_path)
    monkeypatch.setattr(dataset_folder, "write_shard", write_shard)
    assert sum(video.report.kept for video in prepare(videos, tmp_path)) >= 7


def test_pictures_do_not_depend_on_what_came_before(videos: Path, prepared: Path, tmp_path: Path) -> None:
    alone = tmp_path / "videos"
    alone.mkdir()
    (alone / "1.mp4").write_bytes((videos / "bob/1.mp4").read_bytes())
    prepare(alone, tmp_path / "data")
    (shard,) = (tmp_path / "data").glob("*/*.tar")
    together = prepared / shard.parent.name / shard.name
    for first, second in zip(read_shard(shard), read_shard(together), strict=True):
        np.testing.assert_array_equal(first.frames_FHW3, second.frames_FHW3)
