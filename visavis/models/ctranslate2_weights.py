"""Reads the variables of a CTranslate2 `model.bin`.

The layout (binary version 6, everything little-endian):

    uint32 version, string specification name, uint32 specification revision, uint32 number of variables, then per
    variable: string name, uint8 rank, uint32 per dimension, uint8 data type, uint32 number of bytes, the bytes.
    A list of aliases follows, which nobody here needs.

A string is a uint16 length (its terminating zero included) and that many bytes.
"""

import math
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

BINARY_VERSION = 6

# CTranslate2's DataType enumeration, as far as numpy has the type.
_NUMPY_TYPES: dict[int, type[np.generic]] = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


def read_ctranslate2_weights(path: Path, wanted: Callable[[str], bool]) -> dict[str, torch.Tensor]:
    """Reads the variables whose name `wanted` accepts; floating-point ones are widened to float32.

    Raises FileNotFoundError where there is no file, ValueError for anything that is not a binary version 6 model.
    """
    with path.open("rb") as file:
        try:
            return _read_variables(file, wanted)
        except (struct.error, EOFError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a complete CTranslate2 model: {error}") from error


def _read_variables(file: BinaryIO, wanted: Callable[[str], bool]) -> dict[str, torch.Tensor]:
    version = _read_integer(file, "<I")
    if version != BINARY_VERSION:
        raise ValueError(f"CTranslate2 binary version {version} is not supported, only {BINARY_VERSION}")
    _read_string(file)
    _read_integer(file, "<I")
    weights: dict[str, torch.Tensor] = {}
    for _ in range(_read_integer(file, "<I")):
        name = _read_string(file)
        shape = [_read_integer(file, "<I") for _ in range(_read_integer(file, "<B"))]
        data_type, byte_count = _read_integer(file, "<B"), _read_integer(file, "<I")
        if wanted(name):
            weights[name] = _to_tensor(name, shape, data_type, _read_exactly(file, byte_count))
        else:
            file.seek(byte_count, os.SEEK_CUR)
    return weights


def _to_tensor(name: str, shape: list[int], data_type: int, data: bytes) -> torch.Tensor:
    numpy_type = _NUMPY_TYPES.get(data_type)
    if numpy_type is None:
        raise ValueError(f"variable {name} has the unsupported CTranslate2 data type {data_type}")
    if math.prod(shape) * np.dtype(numpy_type).itemsize != len(data):
        raise ValueError(f"variable {name} of shape {shape} cannot have {len(data)} bytes")
    # The copy makes the array writable and aligned, which torch needs.
    tensor = torch.from_numpy(np.frombuffer(data, numpy_type).copy()).reshape(shape)
    return tensor.float() if tensor.is_floating_point() else tensor


def _read_integer(file: BinaryIO, layout: str) -> int:
    (value,) = struct.unpack(layout, _read_exactly(file, struct.calcsize(layout)))
    return int(value)


def _read_string(file: BinaryIO) -> str:
    return _read_exactly(file, _read_integer(file, "<H")).rstrip(b"\0").decode("utf-8")


def _read_exactly(file: BinaryIO, byte_count: int) -> bytes:
    data = file.read(byte_count)
    if len(data) != byte_count:
        raise EOFError(f"the file ends {byte_count - len(data)} bytes early")
    return data
