"""What a device does in a second at best: large matrix products, and copies in its memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, cast

import torch

from visavis.bench.generator_result import Precision
from visavis.models.checkpoints import resolve_dtype
from visavis.models.float8_weight import FORMAT, Float8Weight
from visavis.models.int8_weight import Int8Weight

# Long enough to find a moment in which nobody else takes the device.
_LEAST_REPEATS: Final = 12
_LEAST_SECONDS: Final = 1.0
_COPIED_BYTES: Final = {"cpu": 2**28, "cuda": 2**32}
_MATRIX_SIZE: Final = {"cpu": 2048, "cuda": 8192}


def precision_of(dtype: str, device: torch.device) -> Precision:
    """In what a transformer's large products are computed that is loaded with this `dtype` ("auto" and others).

    Raises ValueError for a dtype that there is not on this device.
    """
    resolved = resolve_dtype(dtype, device)
    if dtype in ("int8", "fp8"):
        return cast("Precision", dtype)
    return "bfloat16" if resolved == torch.bfloat16 else "float32"


def matrix_operations_per_second(device: torch.device, precision: Precision) -> float:
    """The best of several products of two large square matrices, a multiplication and an addition counted as two."""
    size = _MATRIX_SIZE[device.type]
    return 2 * size**3 / _best_seconds(_product(device, precision, size), device)


def copied_bytes_per_second(device: torch.device) -> float:
    """The best of several copies of a large block of memory, bytes read and bytes written added up."""
    size = _COPIED_BYTES[device.type]
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / _best_seconds(lambda: target.copy_(source), device)


def finish(device: torch.device) -> None:
    """Waits until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _product(device: torch.device, precision: Precision, size: int) -> Callable[[], object]:
    if precision == "int8":
        weight = Int8Weight(torch.randn(size, size), size)
        inputs = torch.randint(0, 256, (size, size), dtype=torch.uint8)
        return lambda: weight.product_of_bytes(inputs, 1.0)
    if precision == "fp8":
        rounded = Float8Weight(torch.randn(size, size, device=device), size)
        tokens = torch.randn(size, size, device=device).to(FORMAT)
        return lambda: rounded.product_of_rounded(tokens, torch.ones(size, 1, device=device), torch.bfloat16)
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return lambda: left @ right


def _best_seconds(job: Callable[[], object], device: torch.device) -> float:
    seconds: list[float] = []
    while len(seconds) < _LEAST_REPEATS or sum(seconds) < _LEAST_SECONDS:
        begin = time.perf_counter()
        job()
        finish(device)
        seconds.append(time.perf_counter() - begin)
    return min(seconds)
