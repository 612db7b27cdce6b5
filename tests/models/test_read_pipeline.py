"""READ in one process: the same parts and the same interface as REST, with the teacher in the middle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from visavis.contract import CHUNK_SAMPLES, LOOKAHEAD_SAMPLES
from visavis.models import shipped_weights
from visavis.models.checkpoints import load_part
from visavis.models.pipeline import RestPipeline
from visavis.models.read_pipeline import ReadPipeline

PORTRAIT = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
# 5 chunks and a half.
SPEECH = np.random.default_rng(1).standard_normal(11 * CHUNK_SAMPLES // 2).astype(np.float32) * 0.1


@pytest.fixture(scope="module")
def pipeline() -> ReadPipeline:
    return ReadPipeline.from_preset("tiny", "cpu", "float32")


@pytest.mark.parametrize("samples", [1, 640, 641, CHUNK_SAMPLES + 1, len(SPEECH)])
def test_a_clip_is_as_long_as_its_speech(pipeline: ReadPipeline, samples: int) -> None:
    clip = pipeline(PORTRAIT, SPEECH[:samples])
    chunks = -(-samples // CHUNK_SAMPLES)
    assert clip.pictures_FHW3.shape == (-(-samples // 640), 64, 64, 3)
    assert clip.video_latents_THWC.shape == (3 * chunks, 2, 2, 16)
    assert clip.speech_latents_TWD.shape == (3 * chunks, 2, 32)
    assert clip.pictures_FHW3.std() > 5


def test_speech_in_pieces_gives_the_clip_of_the_whole(pipeline: ReadPipeline) -> None:
    whole = pipeline(PORTRAIT, SPEECH, seed=3)
    chunks = list(pipeline.stream(PORTRAIT, np.split(SPEECH, [1, 700, 20_000, 20_000, 70_000]), seed=3))
    assert [chunk.chunk_index for chunk in chunks] == [1, 2, 3, 4, 5, 6]
    assert torch.equal(torch.cat([chunk.video_latents_THWC for chunk in chunks]), whole.video_latents_THWC)
    streamed = np.concatenate([chunk.pictures_FHW3 for chunk in chunks])
    assert np.array_equal(streamed[: len(whole.pictures_FHW3)], whole.pictures_FHW3)


def test_the_far_future_cannot_change_the_past(pipeline: ReadPipeline) -> None:
    other = SPEECH.copy()
    other[4 * CHUNK_SAMPLES + LOOKAHEAD_SAMPLES :] *= -0.5
    one, two = (list(pipeline.stream(PORTRAIT, [speech])) for speech in (SPEECH, other))
    assert np.array_equal(one[0].pictures_FHW3, two[0].pictures_FHW3)
    assert not np.array_equal(one[1].pictures_FHW3, two[1].pictures_FHW3)
    # The near future counts: that is what READ hears ahead for.
    other[4 * CHUNK_SAMPLES - 2_000 :] = 0.1
    assert not np.array_equal(one[0].pictures_FHW3, next(pipeline.stream(PORTRAIT, [other])).pictures_FHW3)


def test_speech_is_taken_no_further_than_needed(pipeline: ReadPipeline) -> None:
    taken = 0

    def endless() -> Iterator[npt.NDArray[np.float32]]:
        nonlocal taken
        while True:
            taken += 640
            yield np.zeros(640, np.float32)

    chunks = pipeline.stream(PORTRAIT, endless())
    for index in range(1, 4):
        assert next(chunks).chunk_index == index
        assert taken == (index + 3) * CHUNK_SAMPLES + LOOKAHEAD_SAMPLES


def test_seed_portrait_and_settings_decide(pipeline: ReadPipeline) -> None:
    speech = SPEECH[:CHUNK_SAMPLES]
    clip = pipeline(PORTRAIT, speech, seed=5)
    assert np.array_equal(clip.pictures_FHW3, pipeline(PORTRAIT, speech, seed=5).pictures_FHW3)
    slower = replace(pipeline.sampling, steps=4)
    unguided = replace(pipeline.sampling, guidance_scale=1.0)
    others = (
        pipeline(PORTRAIT, speech, seed=6),
        pipeline(255 - PORTRAIT, speech, seed=5),
        pipeline(PORTRAIT, speech, 5, slower),
        pipeline(PORTRAIT, speech, 5, unguided),
    )
    for other in others:
        assert not np.array_equal(clip.pictures_FHW3, other.pictures_FHW3)


def test_the_first_picture_follows_the_portrait(pipeline: ReadPipeline) -> None:
    """Frame 0 is the portrait and is not in the clip; the decoder goes on from it."""
    latents_BTHWC = pipeline.encode_portrait(PORTRAIT)
    chunk = next(pipeline.stream(PORTRAIT, [SPEECH], seed=2))
    state = pipeline.vae.initial_decoder_state(latents_BTHWC, 2)
    expected_BF3HW, _ = pipeline.vae.decode_chunk(chunk.video_latents_THWC[None], state)
    first_HW3 = expected_BF3HW[0, 0].permute(1, 2, 0).add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    assert np.array_equal(chunk.pictures_FHW3[0], first_HW3.numpy())


def test_a_saved_pipeline_gives_the_same_pictures_and_is_no_rest(pipeline: ReadPipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path)
    loaded = ReadPipeline.from_pretrained(tmp_path, "cpu", "float32")
    assert loaded.sampling == pipeline.sampling
    saved, original = (model(PORTRAIT, SPEECH[:16_000], seed=5) for model in (loaded, pipeline))
    assert np.array_equal(saved.pictures_FHW3, original.pictures_FHW3)
    with pytest.raises(ValueError, match="holds a ReadPipeline, not a RestPipeline"):
        load_part(str(tmp_path), "transformer", "cpu", "float32")


def test_a_folder_of_rest_is_no_read(tmp_path: Path) -> None:
    RestPipeline.from_preset("tiny", "cpu", "float32").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a RestPipeline, not a ReadPipeline"):
        ReadPipeline.from_pretrained(tmp_path, "cpu", "float32")


def test_the_teacher_that_ships_is_taken_and_rest_does_not_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pipeline: ReadPipeline
) -> None:
    monkeypatch.setattr(shipped_weights, "_FOLDERS", (tmp_path,))
    before = load_part("tiny", "vae", "cpu", "float32").identity
    trained = {"teacher": pipeline.transformer, "vae": pipeline.vae, "speech_ae": pipeline.speech_ae}
    for part in ("teacher", "speech_ae"):
        _ship(trained[part], tmp_path / "tiny" / part)
    loaded = ReadPipeline.from_preset("tiny", "cpu", "float32")
    assert loaded.config["random_weights"]
    for own, shipped in ((loaded.transformer, "teacher"), (loaded.speech_ae, "speech_ae")):
        assert torch.equal(next(own.parameters()), next(trained[shipped].parameters()) + 1)
    assert load_part("tiny", "vae", "cpu", "float32").identity.random_weights
    _ship(trained["vae"], tmp_path / "tiny" / "vae")
    assert not ReadPipeline.from_preset("tiny", "cpu", "float32").config["random_weights"]
    # A SpeechAE that was fine-tuned along with the teacher is the teacher's.
    fingerprint = load_part("tiny", "vae", "cpu", "float32").identity.fingerprint
    assert fingerprint != before.fingerprint
    _ship(trained["speech_ae"], tmp_path / "tiny" / "teacher_speech_ae", by=2.0)
    own = ReadPipeline.from_preset("tiny", "cpu", "float32").speech_ae
    assert torch.equal(next(own.parameters()), next(trained["speech_ae"].parameters()) + 2)
    assert load_part("tiny", "vae", "cpu", "float32").identity.fingerprint == fingerprint


def _ship(module: torch.nn.Module, folder: Path, by: float = 1.0) -> None:
    """Saves a part as if it had been trained, and leaves it as it was."""
    with torch.no_grad():
        next(module.parameters()).add_(by)
        module.save_pretrained(folder)  # type: ignore[operator]
        next(module.parameters()).sub_(by)


def test_mistakes_are_named(pipeline: ReadPipeline) -> None:
    with pytest.raises(ValueError, match="empty"):
        pipeline(PORTRAIT, SPEECH[:0])
    assert list(pipeline.stream(PORTRAIT, [])) == []
    with pytest.raises(ValueError, match="float32"):
        pipeline(PORTRAIT, SPEECH.astype(np.float64))
    with pytest.raises(ValueError, match="samples standard alone"):
        ReadPipeline.from_preset("tiny", "cpu", "float32", sampling="fast")
    with pytest.raises(ValueError, match="at least 1 step"):
        pipeline(PORTRAIT, SPEECH[:640], 0, replace(pipeline.sampling, steps=0))
