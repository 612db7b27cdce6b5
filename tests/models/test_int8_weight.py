"""Products in 8 bits: close to float32, and no token changes another one's result."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.models.small_transformer import plan, session, small_transformer, speech
from visavis.models.checkpoints import load_part, resolve_dtype
from visavis.models.generation import generate_chunk
from visavis.models.int8_weight import Int8Weight, can_compute_in_int8
from visavis.models.packed_linear import Activation

pytestmark = pytest.mark.skipif(not can_compute_in_int8(), reason="8-bit products need PyTorch with oneDNN on x86")


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


def a_layer(outputs: int = 48, inputs: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(outputs, inputs, generator=generator), torch.randn(outputs, generator=generator)


def some_inputs(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("activation", ["none", "gelu-tanh"])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("shape", [(2, 24, 64), (1, 3, 8, 64)])
def test_a_product_is_close_to_float32(shape: tuple[int, ...], has_bias: bool, activation: Activation) -> None:
    weight, bias = a_layer()
    inputs = some_inputs(*shape)
    actual = Int8Weight(weight, 24).product(inputs, bias if has_bias else None, activation)
    expected = F.linear(inputs, weight, bias if has_bias else None)
    if activation != "none":
        expected = F.gelu(expected, approximate="tanh")
    assert actual.shape == expected.shape
    assert 0 < relative_error(actual, expected) < 0.02


def test_a_loud_token_does_not_drown_the_others() -> None:
    weight, bias = a_layer()
    inputs = some_inputs(1, 24, 64)
    loud = inputs.clone()
    loud[0, 5] *= 1e4
    packed = Int8Weight(weight, 24)
    others = [token for token in range(24) if token != 5]
    assert torch.equal(packed.product(loud, bias)[0, others], packed.product(inputs, bias)[0, others])


@pytest.mark.parametrize("activation", ["none", "gelu-tanh"])
def test_a_row_does_not_change_with_its_neighbours(activation: Activation) -> None:
    weight, bias = a_layer()
    inputs = some_inputs(3, 24, 64)
    inputs[1] *= 50
    packed = Int8Weight(weight, 24)
    together = packed.product(inputs, bias, activation)
    for row in range(3):
        assert torch.equal(together[row : row + 1], packed.product(inputs[row : row + 1], bias, activation))


def test_zeros_give_the_bias() -> None:
    weight, bias = a_layer()
    product = Int8Weight(weight, 4).product(torch.zeros(1, 4, 64), bias)
    assert torch.equal(product, bias.expand(1, 4, -1))


def test_a_chunk_in_int8_is_close_and_deterministic() -> None:
    exact, rounded = small_transformer(), small_transformer()
    rounded.fuse(rounding="int8")
    expected, _ = generate_chunk(speech(), session(plan(exact)))
    first, second = (generate_chunk(speech(), session(plan(rounded)))[0] for _ in range(2))
    assert torch.equal(first, second)
    assert 0 < relative_error(first, expected) < 0.1


def test_the_parameters_stay_what_they_were() -> None:
    exact, rounded = small_transformer(), small_transformer()
    rounded.fuse(rounding="int8")
    for (name, expected), (other_name, actual) in zip(
        exact.state_dict().items(), rounded.state_dict().items(), strict=True
    ):
        assert name == other_name
        assert torch.equal(expected, actual)


def test_only_the_transformer_is_rounded() -> None:
    assert resolve_dtype("int8", torch.device("cpu")) == torch.float32
    decoders = [load_part("tiny", "vae", "cpu", dtype).module for dtype in ("int8", "float32")]
    for (_, first), (_, second) in zip(*(part.state_dict().items() for part in decoders), strict=True):
        assert torch.equal(first, second)
    with pytest.raises(ValueError, match="int8 is for x86 CPUs"):
        resolve_dtype("int8", torch.device("cuda"))
