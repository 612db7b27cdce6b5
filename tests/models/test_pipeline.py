"""The pipeline: live equals whole, folders keep it, mistakes are named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from visavis.contract import CHUNK_SAMPLES, LOOKAHEAD_SAMPLES
from visavis.models.pipeline import RestPipeline, cut_chunks, prepare_portrait

SPEECH = np.random.default_rng(0).normal(0, 0.1, 40_000).astype(np.float32)
PORTRAIT = np.random.default_rng(1).integers(0, 256, (90, 70, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def pipeline() -> RestPipeline:
    return RestPipeline.from_preset("tiny", "cpu", "float32")


def test_a_clip_has_a_picture_for_every_frame_of_speech(pipeline: RestPipeline) -> None:
    clip = pipeline(PORTRAIT, SPEECH, seed=3)
    # 40,000 samples are 62.5 frames and 2.6 chunks.
    assert clip.pictures_FHW3.shape == (63, 64, 64, 3)
    assert clip.video_latents_THWC.shape == (9, 2, 2, 16)
    assert clip.speech_latents_TWD.shape == (9, 2, 32)
    assert clip.pictures_FHW3.std() > 5
    assert not np.array_equal(clip.pictures_FHW3[0], clip.pictures_FHW3[-1])


def test_live_speech_in_pieces_gives_the_pictures_of_the_whole_clip(pipeline: RestPipeline) -> None:
    whole = pipeline(PORTRAIT, SPEECH, seed=3)
    pieces = np.split(SPEECH, [1, 700, 20_000, 20_000, 33_333])
    chunks = list(pipeline.stream(Image.fromarray(PORTRAIT), pieces, seed=3))
    assert [chunk.chunk_index for chunk in chunks] == [1, 2, 3]
    assert torch.equal(torch.cat([chunk.video_latents_THWC for chunk in chunks]), whole.video_latents_THWC)
    streamed = np.concatenate([chunk.pictures_FHW3 for chunk in chunks])
    assert np.array_equal(streamed[:63], whole.pictures_FHW3)


def test_a_chunk_comes_as_soon_as_its_speech_is_there(pipeline: RestPipeline) -> None:
    taken = 0

    def speech() -> Iterator[npt.NDArray[np.float32]]:
        nonlocal taken
        while True:
            taken += 640
            yield np.zeros(640, np.float32)

    next(pipeline.stream(PORTRAIT, speech()))
    assert taken == CHUNK_SAMPLES + LOOKAHEAD_SAMPLES


def test_the_future_cannot_change_the_past(pipeline: RestPipeline) -> None:
    other = SPEECH.copy()
    other[CHUNK_SAMPLES + LOOKAHEAD_SAMPLES :] *= -0.5
    first, second = (list(pipeline.stream(PORTRAIT, [speech])) for speech in (SPEECH, other))
    assert np.array_equal(first[0].pictures_FHW3, second[0].pictures_FHW3)
    assert not np.array_equal(first[1].pictures_FHW3, second[1].pictures_FHW3)


def test_a_saved_pipeline_gives_the_same_pictures(pipeline: RestPipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path)
    loaded = RestPipeline.from_pretrained(tmp_path, "cpu", "float32")
    assert loaded.sampling == pipeline.sampling
    saved, original = (model(PORTRAIT, SPEECH[:16_000], seed=5) for model in (loaded, pipeline))
    assert np.array_equal(saved.pictures_FHW3, original.pictures_FHW3)


def test_the_portrait_is_cropped_in_the_middle() -> None:
    picture = np.zeros((100, 300, 3), np.uint8)
    picture[:, 100:200] = 200
    assert (prepare_portrait(picture, 64) == 200).all()
    assert prepare_portrait(Image.new("L", (10, 40), 7), 32).shape == (32, 32, 3)


def test_mistakes_are_named(pipeline: RestPipeline) -> None:
    with pytest.raises(ValueError, match="empty"):
        pipeline(PORTRAIT, SPEECH[:0])
    with pytest.raises(ValueError, match="float32"):
        pipeline(PORTRAIT, SPEECH.astype(np.float64))
    with pytest.raises(ValueError, match="NaN"):
        pipeline(PORTRAIT, np.full(10, np.nan, np.float32))
    with pytest.raises(ValueError, match="uint8"):
        pipeline(PORTRAIT[:, :, 0], SPEECH)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 20_000), max_size=6))
def test_cutting_does_not_depend_on_the_pieces(lengths: list[int]) -> None:
    samples = np.arange(1, sum(lengths) + 1, dtype=np.float32)
    pieces = np.split(samples, np.cumsum(lengths)) if lengths else []
    chunks, whole = list(cut_chunks(pieces)), list(cut_chunks([samples]))
    assert len(chunks) == len(whole) == -(-len(samples) // CHUNK_SAMPLES)
    for index, (one, other) in enumerate(zip(chunks, whole, strict=True)):
        assert all(torch.equal(*parts) for parts in zip(one, other, strict=True))
        start = index * CHUNK_SAMPLES
        expected = samples[start : start + CHUNK_SAMPLES]
        assert np.array_equal(one[0].numpy()[: len(expected)], expected)
        assert not one[0].numpy()[len(expected) :].any()
        assert np.array_equal(one[1].numpy(), samples[start + CHUNK_SAMPLES :][:LOOKAHEAD_SAMPLES])
