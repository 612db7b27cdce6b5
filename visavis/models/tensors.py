"""Tensor messages from and to torch tensors; bfloat16 stays bfloat16, bit for bit."""

from __future__ import annotations

import math

import torch

from visavis.v1 import tensor_pb2
from visavis.v1.tensor_pb2 import DataType, Tensor

# As in visavis.tensors.
MAX_DIMENSIONS = 8

_DTYPES: dict[DataType.ValueType, torch.dtype] = {
    tensor_pb2.DATA_TYPE_FLOAT32: torch.float32,
    tensor_pb2.DATA_TYPE_FLOAT16: torch.float16,
    tensor_pb2.DATA_TYPE_BFLOAT16: torch.bfloat16,
    tensor_pb2.DATA_TYPE_INT16: torch.int16,
    tensor_pb2.DATA_TYPE_UINT8: torch.uint8,
    tensor_pb2.DATA_TYPE_INT64: torch.int64,
}
_DATA_TYPES = {dtype: data_type for data_type, dtype in _DTYPES.items()}


def tensor_to_message(tensor: torch.Tensor) -> Tensor:
    """Makes the message of a tensor of any shape, device and memory order.

    Raises `ValueError` for a type that has no place in the contract, or more than 8 dimensions. The data is in this
    machine's byte order, which is little-endian wherever PyTorch runs.
    """
    data_type = _DATA_TYPES.get(tensor.dtype)
    if data_type is None:
        raise ValueError(f"a tensor message cannot hold {tensor.dtype}; convert it to one of {list(_DATA_TYPES)}")
    if tensor.ndim > MAX_DIMENSIONS:
        raise ValueError(f"tensor has {tensor.ndim} dimensions; at most {MAX_DIMENSIONS} are allowed")
    flat = tensor.detach().contiguous().cpu().reshape(-1)
    return Tensor(data_type=data_type, shape=tensor.shape, data=flat.view(torch.uint8).numpy().tobytes())


def tensor_from_message(message: Tensor) -> torch.Tensor:
    """Returns the tensor of a message, on the CPU, in memory of its own.

    Raises `ValueError` when the type is unknown, a dimension is negative, there are more than 8, or `data` is not
    exactly as long as type and shape say.
    """
    dtype = _DTYPES.get(message.data_type)
    if dtype is None:
        raise ValueError(f"tensor has the unknown data type {message.data_type}")
    shape = tuple(message.shape)
    if len(shape) > MAX_DIMENSIONS or any(length < 0 for length in shape):
        raise ValueError(f"tensor has an impossible shape: {shape[: MAX_DIMENSIONS + 1]}")
    if math.prod(shape) * dtype.itemsize != len(message.data):
        raise ValueError(f"tensor of shape {shape} and {dtype} does not fit {len(message.data)} bytes of data")
    if not message.data:
        # An empty dimension must not hide another one that nothing can hold.
        if math.prod(max(length, 1) for length in shape) > 2**31:
            raise ValueError(f"tensor has an impossible shape: {shape}")
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(message.data), dtype=torch.uint8).view(dtype).view(shape)
