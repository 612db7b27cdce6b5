"""Products in 8-bit floating point: close to float32, and no token changes another one's result. On the CPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.models.small_transformer import plan, session, small_transformer, speech
from visavis.models.a2v_dit import A2VTransformer
from visavis.models.checkpoints import load_part, resolve_dtype
from visavis.models.float8_weight import Float8Weight
from visavis.models.generation import generate_chunk
from visavis.models.packed_linear import Activation


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("activation", ["none", "gelu-tanh"])
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_product_is_close_to_float32(has_bias: bool, activation: Activation) -> None:
    weight, inputs, bias = drawn(48, 64), drawn(2, 24, 64, seed=1), drawn(48, seed=2) if has_bias else None
    actual = Float8Weight(weight, 24).product(inputs, bias, activation)
    expected = F.linear(inputs, weight, bias)
    if activation != "none":
        expected = F.gelu(expected, approximate="tanh")
    assert actual.shape == expected.shape
    assert 0.005 < relative_error(actual, expected) < 0.06


def test_a_loud_token_does_not_drown_the_others() -> None:
    packed, inputs = Float8Weight(drawn(48, 64), 24), drawn(1, 24, 64, seed=1)
    loud = inputs.clone()
    loud[0, 5] *= 1e4
    others = [token for token in range(24) if token != 5]
    assert torch.equal(packed.product(loud, None)[0, others], packed.product(inputs, None)[0, others])


def test_bfloat16_stays_bfloat16_and_zeros_give_the_bias() -> None:
    bias = drawn(48).bfloat16()
    product = Float8Weight(drawn(48, 64).bfloat16(), 4).product(torch.zeros(1, 4, 64, dtype=torch.bfloat16), bias)
    assert product.dtype == torch.bfloat16
    assert torch.equal(product, bias.expand(1, 4, -1))


def test_a_chunk_in_fp8_is_close_and_deterministic() -> None:
    exact, rounded = small_transformer(), small_transformer()
    rounded.fuse(rounding="fp8")
    expected, _ = generate_chunk(speech(), session(plan(exact)))
    first, second = (generate_chunk(speech(), session(plan(rounded)))[0] for _ in range(2))
    assert torch.equal(first, second)
    assert 0 < relative_error(first, expected) < 0.2


def test_sizes_that_no_kernel_takes_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        Float8Weight(torch.zeros(8, 64), 4)


def test_a_part_loads_in_fp8() -> None:
    assert resolve_dtype("fp8", torch.device("cpu")) == resolve_dtype("auto", torch.device("cpu"))
    part = load_part("tiny", "transformer", "cpu", "fp8")
    assert isinstance(part.module, A2VTransformer)
    assert part.module.proj_in.weight.dtype == resolve_dtype("auto", torch.device("cpu"))
