"""Linear layers prepared for inference on a CPU in float32.

PyTorch's own float32 linear first copies the bias into the result and lets MKL repack the weight at every call; a
GELU then is a pass of its own. oneDNN keeps the weight packed and does bias and GELU while it writes the result: for
the `mini` transformer a tenth of a chunk's time. PyTorch offers this through the operators its compiler uses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import nn

Activation = Literal["none", "gelu-tanh"]
# To how few bits the large products round.
Rounding = Literal["int8", "fp8"]


class PackedWeight(Protocol):
    """A weight in a layout, and perhaps a precision, of its own."""

    def product(self, inputs: torch.Tensor, bias: torch.Tensor | None, activation: Activation = "none") -> torch.Tensor:
        """`activation(inputs @ weight.T + bias)`; the first dimension of `inputs` is the batch. Not differentiable."""
        ...


# Packs a weight for inputs of so many rows (others work too).
Pack = Callable[[torch.Tensor, int], PackedWeight]


class PackedLinear(nn.Linear):
    """An `nn.Linear` with a packed copy of its weight, used where no gradient is wanted.

    The parameters stay what they were, in name and value. When they are replaced or changed afterwards, the packed
    copy is out of date and no longer used.
    """

    def __init__(self, linear: nn.Linear, rows: int, pack: Pack, activation: Activation = "none") -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight = linear.weight
        self.bias = linear.bias
        self._activation = activation
        self._packed = pack(linear.weight.detach(), rows)
        self._source = _identity(linear.weight)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The product, bias and activation included."""
        if torch.is_grad_enabled() or self._source != _identity(self.weight):
            out = F.linear(inputs, self.weight, self.bias)
            return out if self._activation == "none" else F.gelu(out, approximate="tanh")
        return self._packed.product(inputs, self.bias, self._activation)


class Float32Weight:
    """A float32 weight in oneDNN's layout."""

    def __init__(self, weight: torch.Tensor, rows: int) -> None:
        self._packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)

    def product(self, inputs: torch.Tensor, bias: torch.Tensor | None, activation: Activation = "none") -> torch.Tensor:
        """Implements `PackedWeight`."""
        name, algorithm = ("none", "") if activation == "none" else ("gelu", "tanh")
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self._packed, bias, name, [], algorithm)
        return product


def can_pack(weight: torch.Tensor) -> bool:
    """Whether packing helps this weight: float32 on a CPU, with oneDNN. In bfloat16 PyTorch uses oneDNN by itself."""
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available()


def _identity(weight: torch.Tensor) -> tuple[int, int]:
    return weight.data_ptr(), weight._version
