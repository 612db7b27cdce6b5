"""Causal convolutions: any way of cutting a clip into chunks gives the same steps."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from visavis.models.causal_convolution import VideoConvolution
from visavis.models.stream_memory import StreamMemory


def in_chunks(layer: nn.Module, steps: Tensor, sizes: list[int], dim: int) -> Tensor:
    first, *chunks = steps.split([1, *sizes], dim=dim)
    memory = StreamMemory.at_first_frame()
    outputs = [layer(first, memory)]
    for chunk in chunks:
        memory = StreamMemory.after(memory.caches())
        outputs.append(layer(chunk, memory))
    return torch.cat(outputs, dim=dim)


@given(stride=st.integers(1, 2), groups=st.lists(st.integers(1, 3), min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
def test_video_convolution_in_chunks_equals_the_whole(stride: int, groups: list[int]) -> None:
    sizes = [stride * count for count in groups]
    torch.manual_seed(0)
    layer = VideoConvolution(3, 5, stride=stride, causal=True)
    steps = torch.randn(2, 3, 1 + sum(sizes), 4, 4)
    whole = layer(steps, StreamMemory.of_whole_clip())
    torch.testing.assert_close(in_chunks(layer, steps, sizes, dim=2), whole, atol=1e-5, rtol=0)
