"""Torch tensors as messages: exact in every type, and strict about what comes in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from visavis.models.tensors import tensor_from_message, tensor_to_message
from visavis.tensors import numpy_from_tensor
from visavis.v1 import tensor_pb2

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int16, torch.uint8, torch.int64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5,), (2, 3, 4)])
def test_round_trip_is_exact(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (torch.randn(shape) * 50).abs().to(dtype)
    back = tensor_from_message(tensor_to_message(tensor))
    assert back.dtype == dtype
    assert back.shape == tensor.shape
    assert torch.equal(back, tensor)


def test_memory_order_and_gradients_do_not_matter() -> None:
    tensor = torch.randn(3, 4, requires_grad=True).t()
    assert torch.equal(tensor_from_message(tensor_to_message(tensor)), tensor)


def test_numpy_reads_the_same_values() -> None:
    tensor = torch.randn(3, 4)
    array = numpy_from_tensor(tensor_to_message(tensor), max_bytes=1000)
    np.testing.assert_array_equal(array, tensor.numpy())
    rounded = tensor.to(torch.bfloat16)
    array = numpy_from_tensor(tensor_to_message(rounded), max_bytes=1000)
    np.testing.assert_array_equal(array, rounded.float().numpy())


@pytest.mark.parametrize(
    "message",
    [
        tensor_pb2.Tensor(shape=[1], data=b"1234"),
        tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=[2], data=b"1234"),
        tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=[-1, -1], data=b"1234"),
        tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=[1] * 9, data=b"1234"),
        tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=[0, 2**60]),
        tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=[2**40, 2**40], data=b"1234"),
    ],
)
def test_inconsistent_messages_are_refused(message: tensor_pb2.Tensor) -> None:
    with pytest.raises(ValueError, match="tensor"):
        tensor_from_message(message)


def test_types_without_a_place_in_the_contract_are_refused() -> None:
    with pytest.raises(ValueError, match="float64"):
        tensor_to_message(torch.zeros(1, dtype=torch.float64))
    with pytest.raises(ValueError, match="dimensions"):
        tensor_to_message(torch.zeros([1] * 9))
