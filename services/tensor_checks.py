"""Tensors of the contract as torch tensors, checked against the model before they reach it."""

from __future__ import annotations

import torch

from visavis.models.tensors import tensor_from_message
from visavis.runtime.errors import InvalidInput
from visavis.v1 import tensor_pb2


def checked_tensor(message: tensor_pb2.Tensor, shape: tuple[int, ...], field: str) -> torch.Tensor:
    """Returns the floating-point tensor in `message`, which must have `shape` and be finite.

    Raises:
        InvalidInput: for `field`, saying what was expected.
    """
    # By the announced shape first: what does not fit the model is never unpacked.
    if tuple(message.shape) != shape:
        raise InvalidInput(f"expected shape {list(shape)}, got {list(message.shape)}", field)
    try:
        tensor = tensor_from_message(message)
    except ValueError as error:
        raise InvalidInput(str(error), field) from error
    if not tensor.is_floating_point():
        raise InvalidInput(f"expected a floating-point tensor, got {tensor.dtype}", field)
    if not bool(torch.isfinite(tensor).all()):
        raise InvalidInput("the tensor holds NaN or infinity", field)
    return tensor
