"""Tensor messages from and to numpy arrays. bfloat16, which numpy lacks, is float32 on the numpy side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from visavis.v1 import tensor_pb2
from visavis.v1.tensor_pb2 import DataType, Tensor

# More than any tensor of ours has; numpy itself stops at 64.
MAX_DIMENSIONS = 8

_DTYPES: dict[DataType.ValueType, np.dtype[Any]] = {
    tensor_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    tensor_pb2.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    tensor_pb2.DATA_TYPE_INT16: np.dtype("<i2"),
    tensor_pb2.DATA_TYPE_UINT8: np.dtype("u1"),
    tensor_pb2.DATA_TYPE_INT64: np.dtype("<i8"),
}
# What lies in `data`; of a bfloat16 these are its bits.
_WIRE_DTYPES = {**_DTYPES, tensor_pb2.DATA_TYPE_BFLOAT16: np.dtype("<u2")}


def tensor_from_numpy(array: npt.NDArray[Any], *, bfloat16: bool = False) -> Tensor:
    """Makes the message of an array of any shape, memory order and byte order.

    Args:
        array: float32, float16, int16, uint8 or int64.
        bfloat16: narrow a float32 array to bfloat16, rounding to nearest even.

    Raises:
        ValueError: the type has no place in the contract (it is never converted silently), `bfloat16` is asked of
            anything but float32, or the array has more than MAX_DIMENSIONS dimensions.
    """
    _require_dimensions(array.shape)
    if bfloat16:
        return Tensor(data_type=tensor_pb2.DATA_TYPE_BFLOAT16, shape=array.shape, data=_narrow(array).tobytes())
    wire_dtype = array.dtype.newbyteorder("<")
    for data_type, dtype in _DTYPES.items():
        if dtype == wire_dtype:
            return Tensor(data_type=data_type, shape=array.shape, data=array.astype(dtype, copy=False).tobytes())
    raise ValueError(f"a tensor cannot hold {array.dtype}; convert it to {_names(_DTYPES)}")


def numpy_from_tensor(tensor: Tensor, *, max_bytes: int) -> npt.NDArray[Any]:
    """Returns the array of a message, in memory of its own; bfloat16 is widened to float32, which is exact.

    Args:
        tensor: as it came from the network; nothing in it is trusted.
        max_bytes: the most that `data` may hold.

    Raises:
        ValueError: the type is unknown or unset, a dimension is negative, there are more than MAX_DIMENSIONS, the
            shape asks for more than `max_bytes`, or `data` is not exactly as long as type and shape say.
    """
    wire_dtype = _WIRE_DTYPES.get(tensor.data_type)
    if wire_dtype is None:
        raise ValueError(f"tensor has the unknown data type {tensor.data_type}; known are {_names(_WIRE_DTYPES)}")
    shape = tuple(tensor.shape)
    _require_length(shape, wire_dtype.itemsize, len(tensor.data), max_bytes)
    wire = np.frombuffer(tensor.data, dtype=wire_dtype).reshape(shape)
    if tensor.data_type == tensor_pb2.DATA_TYPE_BFLOAT16:
        return _widen(wire)
    return wire.astype(wire_dtype.newbyteorder("="), copy=True)


def _require_dimensions(shape: Sequence[int]) -> None:
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"tensor has {len(shape)} dimensions; at most {MAX_DIMENSIONS} are allowed")


def _require_length(shape: tuple[int, ...], item_bytes: int, data_bytes: int, max_bytes: int) -> None:
    _require_dimensions(shape)
    if any(length < 0 for length in shape):
        raise ValueError(f"tensor has a negative dimension: {shape}")
    # An empty dimension counts as 1 here: it must not hide the others, whose product numpy cannot hold.
    if math.prod(max(length, 1) for length in shape) * item_bytes > max_bytes:
        raise ValueError(f"tensor of shape {shape} is larger than the allowed {max_bytes} bytes")
    expected_bytes = math.prod(shape) * item_bytes
    if data_bytes != expected_bytes:
        raise ValueError(f"tensor of shape {shape} needs {expected_bytes} bytes of data, got {data_bytes}")


def _narrow(array: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """The bfloat16 bits of a float32 array: rounded to nearest even; a NaN stays a NaN, quiet, with its sign."""
    if array.dtype.newbyteorder("=") != np.float32:
        raise ValueError(f"only float32 narrows to bfloat16, got {array.dtype}")
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    # Rounding could carry a NaN's last bits over into infinity or zero.
    quiet = (bits >> 16) | 0x0040
    return np.where(np.isnan(array), quiet, rounded).astype("<u2")


def _widen(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _names(data_types: dict[DataType.ValueType, np.dtype[Any]]) -> str:
    return ", ".join(DataType.Name(data_type).removeprefix("DATA_TYPE_").lower() for data_type in data_types)
