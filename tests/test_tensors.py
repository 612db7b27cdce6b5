"""Tensor messages: what goes in comes out, and nothing malformed gets through."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from visavis.tensors import MAX_DIMENSIONS, numpy_from_tensor, tensor_from_numpy
from visavis.v1 import tensor_pb2
from visavis.v1.tensor_pb2 import DataType, Tensor

MAX_BYTES = 1 << 20
ROOMY = 1 << 62
DATA_TYPES = {
    "float32": tensor_pb2.DATA_TYPE_FLOAT32,
    "float16": tensor_pb2.DATA_TYPE_FLOAT16,
    "int16": tensor_pb2.DATA_TYPE_INT16,
    "uint8": tensor_pb2.DATA_TYPE_UINT8,
    "int64": tensor_pb2.DATA_TYPE_INT64,
}
ITEM_BYTES = {"float32": 4, "float16": 2, "int16": 2, "uint8": 1, "int64": 8}

shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
arrays = st.sampled_from(sorted(DATA_TYPES)).flatmap(lambda name: hnp.arrays(np.dtype(name), shapes))
float32_bits = st.integers(0, 2**32 - 1)


def round_trip(array: npt.NDArray[Any], **options: bool) -> npt.NDArray[Any]:
    message = Tensor.FromString(tensor_from_numpy(array, **options).SerializeToString())
    return numpy_from_tensor(message, max_bytes=MAX_BYTES)


def float32_of(bits: int) -> npt.NDArray[np.float32]:
    return np.array([bits], dtype=np.uint32).view(np.float32)


def bfloat16_bits(array: npt.NDArray[np.float32]) -> int:
    (bits,) = struct.unpack("<H", tensor_from_numpy(array, bfloat16=True).data)
    return int(bits)


@given(arrays)
def test_every_type_and_shape_comes_back_bit_for_bit(array: npt.NDArray[Any]) -> None:
    returned = round_trip(array)
    assert returned.dtype == array.dtype
    assert returned.shape == array.shape
    assert returned.tobytes() == array.tobytes()


@pytest.mark.parametrize(("name", "data_type"), DATA_TYPES.items())
def test_each_type_has_its_own_number_and_size(name: str, data_type: DataType.ValueType) -> None:
    message = tensor_from_numpy(np.zeros((2, 3), dtype=name))
    assert message.data_type == data_type
    assert list(message.shape) == [2, 3]
    assert len(message.data) == 6 * ITEM_BYTES[name]


def test_the_bytes_are_little_endian_and_row_major() -> None:
    message = tensor_from_numpy(np.array([[1, 2], [3, 0x0405]], dtype=np.int16))
    assert message.data == bytes([1, 0, 2, 0, 3, 0, 5, 4])


@given(arrays)
def test_memory_layout_does_not_reach_the_wire(array: npt.NDArray[Any]) -> None:
    plain = tensor_from_numpy(array)
    strided = np.repeat(array[..., None], 2, axis=-1)[..., 0]
    for other in (np.asfortranarray(array), array.astype(array.dtype.newbyteorder(">")), strided):
        assert tensor_from_numpy(other.reshape(array.shape)) == plain


def test_the_array_owns_its_memory() -> None:
    for array in (np.zeros(3, dtype=np.uint8), np.zeros(3, dtype=np.float32)):
        returned = round_trip(array)
        returned += 1
        assert returned.flags.owndata


@pytest.mark.parametrize("dtype", ["float64", "int32", "uint16", "bool", "complex64", "U4", "O", "M8[s]"])
def test_a_type_outside_the_contract_is_refused_not_converted(dtype: str) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        tensor_from_numpy(np.zeros(2, dtype=dtype))


def test_a_structured_type_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        tensor_from_numpy(np.zeros(2, dtype=[("left", "i2"), ("right", "i2")]))


# ---- bfloat16


@given(st.integers(0, 2**16 - 1))
def test_widening_a_bfloat16_appends_zero_bits(bits: int) -> None:
    message = Tensor(data_type=tensor_pb2.DATA_TYPE_BFLOAT16, shape=[1], data=struct.pack("<H", bits))
    widened = numpy_from_tensor(message, max_bytes=2)
    assert widened.dtype == np.float32
    assert int(widened.view(np.uint32)[0]) == bits << 16


@given(st.integers(0, 2**16 - 1))
def test_a_bfloat16_survives_widening_and_narrowing(bits: int) -> None:
    value = float32_of(bits << 16)
    returned = bfloat16_bits(value)
    # Only a signalling NaN changes: it becomes quiet.
    assert returned == (bits | 0x0040 if np.isnan(value[0]) else bits)


@given(float32_bits.filter(lambda bits: (bits & 0x7FFFFFFF) <= 0x7F800000))
def test_narrowing_rounds_to_nearest_even(bits: int) -> None:
    below, remainder = divmod(bits, 0x10000)
    tie_goes_up = below % 2 == 1
    goes_up = remainder > 0x8000 or (remainder == 0x8000 and tie_goes_up)
    assert bfloat16_bits(float32_of(bits)) == below + goes_up


@given(st.integers(1, 0x7FFFFF), st.booleans())
def test_a_nan_stays_a_nan_with_its_sign(payload: int, negative: bool) -> None:
    bits = bfloat16_bits(float32_of(0x7F800000 | payload | (negative << 31)))
    assert bits >> 15 == negative
    assert np.isnan(float32_of(bits << 16)[0])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.inf, 0x7F80),
        (-np.inf, 0xFF80),
        (np.finfo(np.float32).max, 0x7F80),
        (0.0, 0x0000),
        (-0.0, 0x8000),
        (1.0, 0x3F80),
        (np.finfo(np.float32).smallest_subnormal, 0x0000),
    ],
)
def test_narrowing_at_the_ends_of_the_range(value: float, expected: int) -> None:
    assert bfloat16_bits(np.array([value], dtype=np.float32)) == expected


@given(hnp.arrays(np.float32, shapes))
def test_narrowing_keeps_shape_and_layout(array: npt.NDArray[np.float32]) -> None:
    returned = round_trip(array, bfloat16=True)
    assert returned.shape == array.shape
    swapped = array.astype(">f4")
    assert tensor_from_numpy(swapped, bfloat16=True) == tensor_from_numpy(array, bfloat16=True)


def test_narrowing_agrees_with_torch() -> None:
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).standard_normal(4096, dtype=np.float32) * np.float32(1e3)
    ours = round_trip(values, bfloat16=True)
    np.testing.assert_array_equal(ours, torch.from_numpy(values).bfloat16().float().numpy())


@pytest.mark.parametrize("dtype", ["float64", "float16", "int64"])
def test_only_float32_narrows(dtype: str) -> None:
    with pytest.raises(ValueError, match="only float32"):
        tensor_from_numpy(np.zeros(2, dtype=dtype), bfloat16=True)


# ---- what comes from the network


def message(shape: list[int], data: bytes, data_type: int = tensor_pb2.DATA_TYPE_FLOAT32) -> Tensor:
    return Tensor(data_type=DataType.ValueType(data_type), shape=shape, data=data)


@pytest.mark.parametrize(
    ("tensor", "complaint"),
    [
        pytest.param(Tensor(), "unknown data type 0", id="unset"),
        pytest.param(message([1], b"1234", data_type=0), "unknown data type 0", id="type unspecified"),
        pytest.param(message([1], b"1234", data_type=99), "unknown data type 99", id="type of the future"),
        pytest.param(message([1], b"1234", data_type=-1), "unknown data type -1", id="type negative"),
        pytest.param(message([-1], b"1234"), "negative", id="dimension negative"),
        pytest.param(message([-1, -1], b"1234"), "negative", id="product positive, dimensions negative"),
        pytest.param(message([0, -1], b""), "negative", id="negative behind an empty dimension"),
        pytest.param(message([2], b"1234567"), "needs 8 bytes of data, got 7", id="one byte short"),
        pytest.param(message([2], b"123456789"), "needs 8 bytes of data, got 9", id="one byte long"),
        pytest.param(message([], b""), "needs 4 bytes", id="scalar without data"),
        pytest.param(message([1], b""), "needs 4 bytes", id="no data"),
        pytest.param(message([0], b"1234"), "needs 0 bytes", id="data of an empty tensor"),
        pytest.param(message([1] * (MAX_DIMENSIONS + 1), b"1234"), "dimensions", id="too many dimensions"),
        pytest.param(message([1] * 10_000, b"1234"), "dimensions", id="ten thousand dimensions"),
        pytest.param(message([2**63 - 1], b"1234"), "larger than", id="bytes overflow"),
        pytest.param(message([2**32, 2**32], b""), "larger than", id="product wraps to 0 in 64 bits"),
        pytest.param(message([2**62, 4, 2**62], b""), "larger than", id="product wraps far"),
        pytest.param(message([2**62, 4, 0], b""), "larger than", id="overflow behind an empty dimension"),
        pytest.param(message([MAX_BYTES // 4 + 1], bytes(MAX_BYTES + 4)), "larger than", id="over the limit"),
    ],
)
def test_malformed_messages_are_refused(tensor: Tensor, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        numpy_from_tensor(tensor, max_bytes=MAX_BYTES)


def test_the_limit_itself_is_allowed() -> None:
    assert numpy_from_tensor(message([2], bytes(8)), max_bytes=8).shape == (2,)


def test_more_dimensions_than_the_contract_allows_are_refused_on_sending() -> None:
    with pytest.raises(ValueError, match="dimensions"):
        tensor_from_numpy(np.zeros((1,) * (MAX_DIMENSIONS + 1), dtype=np.uint8))


@given(
    data_type=st.integers(-2, 9),
    shape=st.lists(st.one_of(st.integers(-2, 4), st.integers(-(2**63), 2**63 - 1)), max_size=10),
    data=st.binary(max_size=64),
)
def test_no_message_gives_anything_but_an_array_or_a_value_error(data_type: int, shape: list[int], data: bytes) -> None:
    tensor = message(shape, data, data_type)
    for max_bytes in (64, ROOMY):
        try:
            array = numpy_from_tensor(tensor, max_bytes=max_bytes)
        except ValueError:
            continue
        assert list(array.shape) == shape
