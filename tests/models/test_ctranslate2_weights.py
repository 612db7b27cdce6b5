import struct
from pathlib import Path

import pytest
import torch

from visavis.models.ctranslate2_weights import read_ctranslate2_weights


def _string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def _variable(name: str, shape: tuple[int, ...], data_type: int, data: bytes) -> bytes:
    dimensions = struct.pack(f"<B{len(shape)}I", len(shape), *shape)
    return _string(name) + dimensions + struct.pack("<BI", data_type, len(data)) + data


def _model(*variables: bytes, version: int = 6) -> bytes:
    return (
        struct.pack("<I", version)
        + _string("WhisperSpec")
        + struct.pack("<II", 3, len(variables))
        + b"".join(variables)
    )


def _write(folder: Path, data: bytes) -> Path:
    path = folder / "model.bin"
    path.write_bytes(data)
    return path


def test_reads_the_wanted_variables_and_skips_the_others(tmp_path: Path) -> None:
    half = _variable("encoder/half", (2, 2), 4, struct.pack("<4e", 1.0, -2.0, 0.5, 4.0))
    skipped = _variable("decoder/skipped", (3,), 0, struct.pack("<3f", 1, 2, 3))
    scalar = _variable("encoder/heads", (), 2, struct.pack("<h", 6))

    weights = read_ctranslate2_weights(_write(tmp_path, _model(half, skipped, scalar)), lambda name: "encoder/" in name)

    assert weights.keys() == {"encoder/half", "encoder/heads"}
    assert weights["encoder/half"].dtype == torch.float32
    assert weights["encoder/half"].tolist() == [[1.0, -2.0], [0.5, 4.0]]
    assert weights["encoder/heads"].item() == 6


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a complete"),
        (_model(version=5), "version 5"),
        (_model(_variable("x", (2,), 0, struct.pack("<2f", 1, 2)))[:-1], "1 bytes early"),
        (_model(_variable("x", (3,), 0, struct.pack("<2f", 1, 2))), "cannot have 8 bytes"),
        (_model(_variable("x", (1,), 9, b"\0")), "data type 9"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_ctranslate2_weights(_write(tmp_path, data), lambda name: True)
