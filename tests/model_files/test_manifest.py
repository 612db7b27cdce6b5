"""The list of a model's files: what it says, and what it refuses."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.model_files.errors import ModelFilesError
from visavis.model_files.manifest import MANIFEST_FILE, parse_manifest, verify_folder, write_manifest

SUM = "0" * 64


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "vae").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "vae" / "diffusion model.safetensors").write_bytes(bytes(range(256)) * 1000)
    return folder


def test_a_folder_that_is_as_it_was_is_verified(model: Path) -> None:
    first = write_manifest(model)
    verify_folder(model, first)
    assert write_manifest(model) == first


def test_the_list_is_one_that_sha256sum_checks(model: Path) -> None:
    write_manifest(model)
    subprocess.run(["sha256sum", "--check", "--strict", MANIFEST_FILE], cwd=model, check=True, capture_output=True)


@pytest.mark.parametrize("change", ["flip a bit", "lose a file", "add a file", "lose the list", "write another list"])
def test_every_change_is_noticed(model: Path, change: str) -> None:
    expected = write_manifest(model)
    weights = model / "vae" / "diffusion model.safetensors"
    if change == "flip a bit":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    elif change == "lose a file":
        weights.unlink()
    elif change == "add a file":
        (model / "vae" / "pytorch_model.bin").touch()
    elif change == "lose the list":
        (model / MANIFEST_FILE).unlink()
    else:
        weights.write_bytes(b"other weights")
        write_manifest(model)
    with pytest.raises(ModelFilesError):
        verify_folder(model, expected)


@pytest.mark.parametrize(
    "line",
    [
        f"{SUM}  ../outside",
        f"{SUM}  /etc/passwd",
        f"{SUM}  a/../../b",
        f"{SUM}  a/./b",
        f"{SUM}  a\\b",
        f"{SUM}  {MANIFEST_FILE}",
        f"{SUM} a",
        f"{SUM[:-1]}  a",
        f"{SUM}  a\n{SUM}  a",
        "",
    ],
)
def test_a_list_that_leads_elsewhere_is_refused(line: str) -> None:
    with pytest.raises(ModelFilesError):
        parse_manifest(f"{line}\n".encode())


@given(st.binary(max_size=200))
def test_any_bytes_are_a_list_or_are_refused(content: bytes) -> None:
    try:
        sums = parse_manifest(content)
    except ModelFilesError:
        return
    assert all(".." not in path.split("/") and not path.startswith("/") for path in sums)


def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError):
        write_manifest(tmp_path)
