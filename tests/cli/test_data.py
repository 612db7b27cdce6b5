"""`visavis data`: what it says when something is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.made_up_assets import make_assets
from visavis.cli.main import main
from visavis.training.data import voices
from visavis.training.data.clips import clip_to_files
from visavis.training.data.shards import write_shard


def test_a_missing_asset_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "portrait", "--assets", str(tmp_path / "gone"), "-o", str(tmp_path / "p.png")]) == 1
    assert "gone" in capsys.readouterr().err


def test_missing_voices_are_listed_before_anything_is_rendered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voices, "installed_engines", lambda: ())
    out = tmp_path / "data"
    assert main(["data", "render", "--assets", str(tmp_path), "--out", str(out), "--clips", "1"]) == 1
    assert "piper" in (said := capsys.readouterr().err)
    assert "flite" in said
    assert not out.exists()


def test_no_clips_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "render", "--assets", str(tmp_path), "--out", str(tmp_path), "--clips", "0"]) == 1
    assert "--clips" in capsys.readouterr().err


def test_an_empty_folder_has_no_contact_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "contact-sheet", str(tmp_path), "-o", str(tmp_path / "sheet.png")]) == 1
    assert "no shards" in capsys.readouterr().err


def test_a_portrait_is_written(tmp_path: Path) -> None:
    assets = make_assets(tmp_path / "assets")
    assert main(["data", "portrait", "--assets", str(assets), "-o", str(tmp_path / "p.png"), "--seed", "2"]) == 0
    assert (tmp_path / "p.png").stat().st_size > 1_000


def test_a_contact_sheet_and_a_sample_video_are_written(tmp_path: Path) -> None:
    import av
    from PIL import Image

    from tests.training.test_shards import made_up_clip

    write_shard(tmp_path / "train-00000.tar", [clip_to_files(made_up_clip(index)) for index in range(3)])
    sheet, video = tmp_path / "sheet.png", tmp_path / "sample.mp4"
    assert main(["data", "contact-sheet", str(tmp_path), "-o", str(sheet), "--moments", "4"]) == 0
    assert Image.open(sheet).size == (4 * 160, 3 * 160)
    assert main(["data", "sample-video", str(tmp_path), "--clip", "1", "-o", str(video)]) == 0
    with av.open(str(video), "r") as container:
        assert len(list(container.decode(video=0))) == 8
        assert len(container.streams.audio) == 1
    assert main(["data", "sample-video", str(tmp_path), "--clip", "99", "-o", str(video)]) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--detectors", "gone/python"], "make detectors"),
        (["--size", "100"], "--size"),
        (["--test-share", "2"], "--test-share"),
    ],
)
def test_footage_is_refused_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert main(["data", "prepare", str(tmp_path), "--out", str(tmp_path / "data"), *options]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
