"""Models come whole and verified, or not at all."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.model_files.object_store import WebFolder, web_folder
from visavis.cli.main import main
from visavis.model_files.errors import ModelFilesError
from visavis.model_files.fetching import fetch_model
from visavis.model_files.manifest import MANIFEST_FILE, verify_folder, write_manifest

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """A folder with one model below `models/mini`."""
    model = tmp_path / "bucket" / "models" / "mini"
    (model / "transformer").mkdir(parents=True)
    (model / "model_index.json").write_text("{}")
    (model / WEIGHTS).write_bytes(b"weights" * 3_000_000)  # several parts
    return tmp_path / "bucket"


@pytest.fixture
def sha256(bucket: Path) -> str:
    return write_manifest(bucket / "models" / "mini")


@pytest.fixture
def web(bucket: Path) -> Iterator[WebFolder]:
    with web_folder(bucket) as web:
        yield web


def leftovers(target: Path) -> list[str]:
    return [path.name for path in target.parent.iterdir() if not path.name.endswith(".lock")]


def fetch(source: str, target: Path, sha256: str) -> list[str]:
    said: list[str] = []
    fetch_model(source, target, sha256, said.append)
    return said


def test_from_a_web_server(web: WebFolder, sha256: str, tmp_path: Path) -> None:
    target = tmp_path / "volume" / "mini"
    said = fetch(f"{web.url}/models/mini", target, sha256)
    verify_folder(target, sha256)
    assert len(said) == 2
    assert leftovers(target) == ["mini"]


def test_from_a_folder(bucket: Path, sha256: str, tmp_path: Path) -> None:
    for name, source in (("a", str(bucket / "models/mini")), ("b", (bucket / "models/mini").as_uri())):
        fetch(source, tmp_path / name, sha256)
        verify_folder(tmp_path / name, sha256)


def test_from_an_s3_compatible_store(
    bucket: Path, sha256: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with web_folder(bucket.parent, signed=True) as store:
        for name, value in (
            ("AWS_ENDPOINT_URL", store.url),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ):
            monkeypatch.setenv(name, value)
        fetch("s3://bucket/models/mini", tmp_path / "mini", sha256)
        assert f"bucket/models/mini/{WEIGHTS}" in store.requested
    verify_folder(tmp_path / "mini", sha256)


def test_what_is_there_is_verified_and_not_fetched_again(web: WebFolder, sha256: str, tmp_path: Path) -> None:
    target = tmp_path / "mini"
    fetch(f"{web.url}/models/mini", target, sha256)
    web.requested.clear()
    fetch(f"{web.url}/models/mini", target, sha256)
    assert web.requested == []
    (target / WEIGHTS).write_bytes(b"bad disk")
    with pytest.raises(ModelFilesError, match="damaged"):
        fetch(f"{web.url}/models/mini", target, sha256)


def test_changed_weights_are_refused_and_nothing_is_kept(
    bucket: Path, web: WebFolder, sha256: str, tmp_path: Path
) -> None:
    (bucket / "models/mini" / WEIGHTS).write_bytes(b"poison")
    with pytest.raises(ModelFilesError, match=WEIGHTS):
        fetch(f"{web.url}/models/mini", tmp_path / "volume" / "mini", sha256)
    assert leftovers(tmp_path / "volume" / "mini") == []


def test_another_list_is_refused_before_anything_else_is_fetched(
    bucket: Path, web: WebFolder, sha256: str, tmp_path: Path
) -> None:
    (bucket / "models/mini" / WEIGHTS).write_bytes(b"poison")
    write_manifest(bucket / "models/mini")
    with pytest.raises(ModelFilesError, match="another model"):
        fetch(f"{web.url}/models/mini", tmp_path / "volume" / "mini", sha256)
    assert web.requested == [f"models/mini/{MANIFEST_FILE}"]


def test_what_a_killed_fetch_left_is_thrown_away(web: WebFolder, sha256: str, tmp_path: Path) -> None:
    partial = tmp_path / "volume" / ".mini.partial"
    partial.mkdir(parents=True)
    (partial / "model_index.json").write_text("half")
    fetch(f"{web.url}/models/mini", tmp_path / "volume" / "mini", sha256)
    verify_folder(tmp_path / "volume" / "mini", sha256)


def test_two_pods_on_one_volume_fetch_once(web: WebFolder, sha256: str, tmp_path: Path) -> None:
    pods = [threading.Thread(target=fetch, args=(f"{web.url}/models/mini", tmp_path / "mini", sha256)) for _ in "ab"]
    for pod in pods:
        pod.start()
    for pod in pods:
        pod.join()
    assert web.requested.count(f"models/mini/{WEIGHTS}") == 1
    verify_folder(tmp_path / "mini", sha256)


@pytest.mark.parametrize("source", ["ftp://host/x", "nowhere", "http://127.0.0.1:1/x"])
def test_a_source_that_there_is_not(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelFilesError):
        fetch(source, tmp_path / "mini", "0" * 64)


def test_a_missing_file_is_named(bucket: Path, web: WebFolder, sha256: str, tmp_path: Path) -> None:
    (bucket / "models/mini" / WEIGHTS).unlink()
    with pytest.raises(ModelFilesError, match="safetensors"):
        fetch(f"{web.url}/models/mini", tmp_path / "mini", sha256)


def test_the_command(bucket: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, target = str(bucket / "models/mini"), str(tmp_path / "mini")
    assert main(["model", "manifest", model]) == 0
    expected = ["--manifest-sha256", capsys.readouterr().out.strip()]
    assert main(["model", "fetch", model, target, *expected]) == 0
    assert main(["model", "verify", target, *expected]) == 0
    shutil.rmtree(tmp_path / "mini" / "transformer")
    assert main(["model", "verify", target, *expected]) == 1
    assert "lacks" in capsys.readouterr().err
