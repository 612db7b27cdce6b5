"""Frames go back with exactly the sound that belongs to them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audio_format import PcmFormat
from gateway.input_position import InputPosition
from gateway.segments import build_segment
from gateway.timeline_output import TimelineChunk
from tests.gateway.strategies import S16, noise_pcm, pcm_formats
from visavis.v1.media_pb2 import Frame
from visavis.v1.talking_head_pb2 import ChunkTiming

SILENCE = np.zeros(15_360, np.float32)


def chunk_at(index: int, audio_format: PcmFormat) -> TimelineChunk:
    pcm = noise_pcm(audio_format, audio_format.samples_per_chunk, index)
    return TimelineChunk(
        2, 3, index, SILENCE, SILENCE[:0], pcm, InputPosition(5, 2), ready_at=0, due_at=0, follows=False
    )


@given(pcm_formats(), st.integers(1, 100_000), st.lists(st.integers(1, 23), max_size=5))
def test_segments_tile_the_timeline_without_gap_or_overlap(
    audio_format: PcmFormat, chunk_index: int, borders: list[int]
) -> None:
    chunk = chunk_at(chunk_index, audio_format)
    cuts = sorted({0, 24, *borders})
    frames = [Frame(data=bytes([n])) for n in range(24)]
    segments = [
        build_segment(chunk, audio_format, a, frames[a:b], ChunkTiming() if b == 24 else None)
        for a, b in pairwise(cuts)
    ]
    assert b"".join(segment.pcm for segment in segments) == chunk.pcm
    assert [frame.data for segment in segments for frame in segment.frames] == [frame.data for frame in frames]
    assert [segment.last_in_chunk for segment in segments] == [False] * (len(segments) - 1) + [True]
    position = (chunk_index - 1) * audio_format.samples_per_chunk
    for segment in segments:
        assert segment.synthetic
        assert (segment.epoch, segment.utterance_id, segment.chunk_index) == (2, 3, chunk_index)
        assert segment.audio_start_sample == position
        assert (segment.input_position.samples, segment.input_position.utterances) == (5, 2)
        position = segment.audio_end_sample
        assert (
            len(segment.pcm) == (segment.audio_end_sample - segment.audio_start_sample) * audio_format.bytes_per_sample
        )
        seconds = segment.presentation_time.ToNanoseconds() / 1e9
        assert seconds == (segment.first_frame_index - 1) / 25
        assert seconds * audio_format.sample_rate_hz == pytest.approx(segment.audio_start_sample)
    assert position == chunk_index * audio_format.samples_per_chunk


@pytest.mark.parametrize(("offset", "count"), [(0, 0), (0, 25), (24, 1), (-1, 1)])
def test_frames_outside_the_chunk_are_refused(offset: int, count: int) -> None:
    audio_format = PcmFormat(S16, 16_000, 1)
    with pytest.raises(ValueError, match="do not fit"):
        build_segment(chunk_at(1, audio_format), audio_format, offset, [Frame()] * count, None)
