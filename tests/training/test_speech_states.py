"""Whisper's states on disk: the features of a live session, never those of other speech or other weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.made_up_speaker import ToneSpeaker
from tests.training.made_up_talker import FRAMES, made_up_talker
from visavis.models.speech_features import clip_features
from visavis.models.whisper import WhisperFeatures, WhisperFeaturesConfig
from visavis.training.data.clip_plan import split_of
from visavis.training.data.clips import clip_to_files
from visavis.training.data.shards import write_shard
from visavis.training.data.voices import VOICES
from visavis.training.speech.heard_voices import heard_voices
from visavis.training.speech.recordings import Recording, ShardSpeech, SpokenBatch
from visavis.training.speech.states_cache import CachedStates, StatesCacheError, cache_states

SMALL = WhisperFeaturesConfig(
    d_model=32,
    encoder_layers=2,
    encoder_attention_heads=2,
    encoder_ffn_dim=64,
    num_mel_bins=80,
    max_source_positions=300,
)


@pytest.fixture(scope="module")
def whisper() -> WhisperFeatures:
    features: WhisperFeatures = WhisperFeatures.from_random(SMALL, seed=0)
    return features


@pytest.fixture
def shard(tmp_path: Path) -> ShardSpeech:
    path = tmp_path / "train-00000.tar"
    write_shard(path, [clip_to_files(made_up_talker(index)) for index in range(2)])
    return ShardSpeech(path)


@dataclass(frozen=True)
class Recordings:
    """Given recordings as a batch."""

    given: tuple[Recording, ...]
    name = "given"
    identity = "0" * 64

    def recordings(self) -> list[Recording]:
        return list(self.given)


def test_cached_features_are_those_of_the_streaming_extractor(
    shard: ShardSpeech, whisper: WhisperFeatures, tmp_path: Path
) -> None:
    recordings = list(shard.recordings())
    with CachedStates([cache_states(shard, tmp_path, whisper)]) as states:
        assert len(states) == 2
        for clip, recording in zip(states, recordings, strict=True):
            assert (clip.key, clip.voice) == (recording.key, recording.voice)
            features_FWX = clip_features(torch.from_numpy(recording.samples_S), whisper)
            assert clip.features().shape == (FRAMES, 10, 96)
            torch.testing.assert_close(clip.features(), features_FWX, rtol=1e-3, atol=1e-2)
            np.testing.assert_array_equal(clip.jaw_F.numpy(), recording.jaw_F)


def test_what_is_cached_is_not_computed_again(shard: ShardSpeech, whisper: WhisperFeatures, tmp_path: Path) -> None:
    path = cache_states(shard, tmp_path, whisper)
    written = path.stat().st_mtime_ns

    assert cache_states(shard, tmp_path, whisper) == path
    assert path.stat().st_mtime_ns == written
    assert not list(tmp_path.rglob("*.partial"))


def test_other_weights_and_other_speech_have_other_files(
    shard: ShardSpeech, whisper: WhisperFeatures, tmp_path: Path
) -> None:
    path = cache_states(shard, tmp_path, whisper)

    assert cache_states(shard, tmp_path, WhisperFeatures.from_random(SMALL, seed=1)) != path
    write_shard(shard.path, [clip_to_files(made_up_talker(index)) for index in (0, 2)])
    assert cache_states(shard, tmp_path, whisper) != path


def test_a_broken_file_is_named(shard: ShardSpeech, whisper: WhisperFeatures, tmp_path: Path) -> None:
    path = cache_states(shard, tmp_path, whisper)
    path.write_bytes(path.read_bytes()[:1000])

    with pytest.raises(StatesCacheError, match=r"train-00000.*remove it"):
        CachedStates([path])
    with pytest.raises(StatesCacheError, match="no speech states"):
        CachedStates([])


def test_recordings_that_do_not_fit_together_are_refused(whisper: WhisperFeatures, tmp_path: Path) -> None:
    clip = Recording("a", "", np.zeros(15_360, dtype=np.float32), np.zeros(25, dtype=np.float32))
    longer = Recording("b", "", np.zeros(2 * 15_360, dtype=np.float32), np.zeros(49, dtype=np.float32))

    for given, message in (
        ((clip, longer), "one length"),
        ((), "one length"),
        ((replace(clip, samples_S=clip.samples_S[:-640]),), "whole chunks"),
        ((replace(clip, jaw_F=clip.jaw_F[:-1]),), "every frame"),
    ):
        with pytest.raises(StatesCacheError, match=message):
            cache_states(Recordings(given), tmp_path, whisper)  # type: ignore[arg-type]
    assert not list(tmp_path.rglob("*.safetensors"))


def test_footage_has_speech_but_no_jaw(tmp_path: Path) -> None:
    clip = made_up_talker(0)
    footage = replace(clip, actions=(), curves_FA=np.zeros((FRAMES, 0), dtype=np.float32), head_F6=None)
    write_shard(tmp_path / "train-00000.tar", [clip_to_files(footage)])

    (recording,) = ShardSpeech(tmp_path / "train-00000.tar").recordings()

    assert np.isnan(recording.jaw_F).all()
    assert len(recording.jaw_F) == FRAMES


def test_spoken_clips_are_the_same_every_time_and_of_their_split() -> None:
    batch = SpokenBatch(seed=5, split="train", number=1, size=3, voices=VOICES, speaker=ToneSpeaker)
    first, again = list(batch.recordings()), list(batch.recordings())

    assert [item.key for item in first] == [item.key for item in again]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.samples_S, other.samples_S)
        assert split_of(int(one.key)) == "train"
        assert not any(voice.test for voice in VOICES if voice.name == one.voice)
    assert replace(batch, seed=6).identity != batch.identity != replace(batch, number=2).identity
    earlier = list(replace(batch, number=0).recordings())
    assert max(int(item.key) for item in earlier) < min(int(item.key) for item in first)


def test_no_voice_of_the_tests_is_heard_in_training() -> None:
    heard = heard_voices()
    for tested in (voice for voice in VOICES if voice.test):
        same = [voice for voice in heard if (voice.engine, voice.engine_voice) == (tested.engine, tested.engine_voice)]
        assert all(abs(voice.pitch / tested.pitch - 1) > 0.04 for voice in same)
        assert tested.engine == "piper" or not same
    assert len({voice.name for voice in heard}) == len(heard) > 150
