"""Causal convolutions: any way of cutting a clip into chunks gives the same steps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from visavis.models.causal_convolution import CausalTimeConvolution, VideoConvolution
from visavis.models.stream_memory import StreamMemory


def in_chunks(layer: nn.Module, steps: Tensor, sizes: list[int], dim: int) -> Tensor:
    first, *chunks = steps.split([1, *sizes], dim=dim)
    memory = StreamMemory.at_first_frame()
    outputs = [layer(first, memory)]
    for chunk in chunks:
        memory = StreamMemory.after(memory.caches())
        outputs.append(layer(chunk, memory))
    return torch.cat(outputs, dim=dim)


@given(kernel=st.integers(1, 4), stride=st.integers(1, 3), groups=st.lists(st.integers(1, 3), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_time_convolution_in_chunks_equals_the_whole(kernel: int, stride: int, groups: list[int]) -> None:
    stride = min(stride, kernel)
    sizes = [stride * count for count in groups]
    torch.manual_seed(0)
    layer = CausalTimeConvolution(3, 5, kernel_steps=kernel, stride_steps=stride)
    nn.init.normal_(layer.weight)
    steps = torch.randn(2, 1 + sum(sizes), 2, 3, 3)
    whole = layer(steps, StreamMemory.of_whole_clip())
    assert whole.shape == (2, 1 + sum(groups), 2, 3, 5)
    torch.testing.assert_close(in_chunks(layer, steps, sizes, dim=1), whole, atol=1e-5, rtol=0)


@given(stride=st.integers(1, 2), groups=st.lists(st.integers(1, 3), min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
def test_video_convolution_in_chunks_equals_the_whole(stride: int, groups: list[int]) -> None:
    sizes = [stride * count for count in groups]
    torch.manual_seed(0)
    layer = VideoConvolution(3, 5, stride=stride, causal=True)
    steps = torch.randn(2, 3, 1 + sum(sizes), 4, 4)
    whole = layer(steps, StreamMemory.of_whole_clip())
    torch.testing.assert_close(in_chunks(layer, steps, sizes, dim=2), whole, atol=1e-5, rtol=0)


def test_time_convolution_is_the_sum_over_taps() -> None:
    layer = CausalTimeConvolution(1, 1, kernel_steps=3)
    with torch.no_grad():
        layer.weight[0, 0, :, 0] = torch.tensor([100.0, 10.0, 1.0])
    steps = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1, 1)
    mixed = layer(steps, StreamMemory.of_whole_clip()).flatten()
    assert mixed.tolist() == [111.0, 112.0, 123.0]


@pytest.mark.parametrize("stride", [0, 4])
def test_a_stride_beyond_the_kernel_is_refused(stride: int) -> None:
    with pytest.raises(ValueError, match="stride_steps"):
        CausalTimeConvolution(1, 1, kernel_steps=3, stride_steps=stride)
