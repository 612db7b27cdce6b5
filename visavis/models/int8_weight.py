"""Weights in 8 bits for processors with VNNI: products of bytes run at three times the rate of float32.

Legend: R rows of the batch, N tokens of a row, I inputs, O outputs.

Weights are rounded once, with a scale for each output. Inputs are rounded at every call, with a scale for each token:
no token's result depends on another one's, so a session's pictures do not depend on whom it shares a batch with. Only
where an activation follows, which oneDNN applies to the finished product, a row of the batch has one scale for all its
tokens; in a transformer these inputs have just been normalised, so tokens are equally large.

Everything between the products stays float32. PyTorch offers the product through the operator its compiler uses.
"""

from __future__ import annotations

import platform
from typing import Final

import torch

from visavis.models.packed_linear import Activation

# Inputs become 1 to 255, and 128 is zero: oneDNN's fast kernels take bytes without sign here.
_LARGEST: Final = 127
_ZERO: Final = 128
# Below this a token counts as all zeros.
_SMALLEST_SCALE: Final = 1e-30


class Int8Weight:
    """Implements `PackedWeight` with inputs and weight of 8 bits."""

    def __init__(self, weight_OI: torch.Tensor, rows: int) -> None:
        scales_O1 = weight_OI.abs().amax(1, keepdim=True).clamp_min(_SMALLEST_SCALE) / _LARGEST
        rounded_OI = (weight_OI / scales_O1).round().to(torch.int8)
        self._packed: torch.Tensor = torch.ops.onednn.qlinear_prepack(rounded_OI, [rows, weight_OI.shape[1]])
        self._scales_O = scales_O1.flatten()
        self._zeros_O = torch.zeros(len(weight_OI), dtype=torch.int32)

    def product(self, inputs: torch.Tensor, bias: torch.Tensor | None, activation: Activation = "none") -> torch.Tensor:
        """Implements `PackedWeight`."""
        if activation == "none":
            outputs_NO = self._by_token(inputs.reshape(-1, inputs.shape[-1]), bias)
        elif len(inputs) == 1:
            outputs_NO = self._activated(inputs.reshape(-1, inputs.shape[-1]), bias)
        else:
            outputs_NO = torch.cat([self._activated(row.reshape(-1, row.shape[-1]), bias) for row in inputs])
        return outputs_NO.view(*inputs.shape[:-1], -1)

    def _by_token(self, inputs_NI: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        largest_N1 = inputs_NI.abs().amax(1, keepdim=True).clamp_min_(_SMALLEST_SCALE)
        outputs_NO = self.product_of_bytes(_rounded(inputs_NI, largest_N1), 1 / _LARGEST)
        return outputs_NO.mul_(largest_N1) if bias is None else torch.addcmul(bias, outputs_NO, largest_N1)

    def _activated(self, inputs_NI: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        largest = inputs_NI.abs().max().clamp_min_(_SMALLEST_SCALE)
        return self.product_of_bytes(_rounded(inputs_NI, largest), float(largest) / _LARGEST, bias, "gelu-tanh")

    def product_of_bytes(
        self,
        bytes_NI: torch.Tensor,
        scale: float,
        bias: torch.Tensor | None = None,
        activation: Activation = "none",
    ) -> torch.Tensor:
        """The same for inputs that are rounded already: uint8, of which each stands for `scale` times (it - 128)."""
        name, algorithm = ("none", "") if activation == "none" else ("gelu", "tanh")
        product: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            bytes_NI,
            scale,
            _ZERO,
            self._packed,
            self._scales_O,
            self._zeros_O,
            bias,
            1.0,
            0,
            torch.float32,
            name,
            [],
            algorithm,
        )
        return product


def can_compute_in_int8() -> bool:
    """Whether PyTorch has these kernels here. They are only fast where the processor has VNNI or AMX."""
    return platform.machine().lower() in ("x86_64", "amd64") and torch.backends.mkldnn.is_available()


def _rounded(inputs: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    # Cutting off what follows the point rounds, after half has been added.
    return inputs.mul(_LARGEST / largest).add_(_ZERO + 0.5).to(torch.uint8)
