"""Weights and inputs in 8-bit floating point (e4m3), for GPUs with tensor cores for it (Ada, Hopper, Blackwell).

Legend: N tokens of all rows, I inputs, O outputs.

Weights are rounded once, with a scale for each output; inputs at every call, with a scale for each token, so that no
token's result depends on another's. Sums are made in float32. On a CPU PyTorch has the product too, slow but good
for measuring what the rounding does to pictures (`visavis bench precision --dtype fp8`).
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F

from visavis.models.packed_linear import Activation

FORMAT: Final = torch.float8_e4m3fn
_LARGEST: Final = torch.finfo(FORMAT).max
# Below this a token counts as all zeros.
_SMALLEST_SCALE: Final = 1e-12
# The kernels' least alignment, of inputs and outputs alike.
_MULTIPLE: Final = 16
# Ada is the first generation with these products.
_LEAST_CAPABILITY: Final = (8, 9)


class Float8Weight:
    """Implements `PackedWeight` with inputs and weight of 8 bits; results have the type of the inputs."""

    def __init__(self, weight_OI: torch.Tensor, rows: int) -> None:
        """`rows` changes nothing here. Raises ValueError for sizes that are no multiples of 16."""
        if weight_OI.shape[0] % _MULTIPLE or weight_OI.shape[1] % _MULTIPLE:
            raise ValueError(f"fp8 products need sizes in multiples of {_MULTIPLE}, not {list(weight_OI.shape)}")
        rounded_OI, scales_O1 = _rounded(weight_OI)
        self._weight_IO = rounded_OI.t()
        self._scales_1O = scales_O1.t().contiguous()

    def product(self, inputs: torch.Tensor, bias: torch.Tensor | None, activation: Activation = "none") -> torch.Tensor:
        """Implements `PackedWeight`."""
        rounded_NI, scales_N1 = _rounded(inputs.reshape(-1, inputs.shape[-1]))
        outputs_NO = self.product_of_rounded(rounded_NI, scales_N1, inputs.dtype)
        if bias is not None:
            outputs_NO = outputs_NO + bias
        if activation != "none":
            outputs_NO = F.gelu(outputs_NO, approximate="tanh")
        return outputs_NO.view(*inputs.shape[:-1], -1)

    def product_of_rounded(self, rounded_NI: torch.Tensor, scales_N1: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The same for inputs that are rounded already, without bias. CUDA has it for `dtype` bfloat16 alone."""
        product_NO: torch.Tensor = torch._scaled_mm(
            rounded_NI, self._weight_IO, scale_a=scales_N1, scale_b=self._scales_1O, out_dtype=dtype
        )
        return product_NO


def can_compute_in_float8(device: torch.device) -> bool:
    """Whether this device has the product; on a CPU it is there, and slow."""
    return device.type == "cpu" or torch.cuda.get_device_capability(device) >= _LEAST_CAPABILITY


def _rounded(values_NI: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rounded values, and what each row of them is to be multiplied with [N, 1], in float32."""
    scales_N1 = values_NI.abs().amax(1, keepdim=True).float().clamp_min(_SMALLEST_SCALE) / _LARGEST
    return (values_NI / scales_N1).to(FORMAT), scales_N1
