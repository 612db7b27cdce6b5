import pytest
import torch

from tests.models.speech_signals import voiced_signal
from visavis.models.speech_ae import SpeechAE
from visavis.models.speech_encoder import SpeechEncoder, SpeechEncoderState
from visavis.models.speech_features import CHUNK_SAMPLES, LOOKAHEAD_SAMPLES, clip_features
from visavis.models.whisper import WhisperFeatures, WhisperFeaturesConfig

SMALL = WhisperFeaturesConfig(
    d_model=32,
    encoder_layers=2,
    encoder_attention_heads=2,
    encoder_ffn_dim=64,
    num_mel_bins=80,
    max_source_positions=300,
)
NO_LOOKAHEAD = torch.zeros(0)


@pytest.fixture(scope="module")
def encoder() -> SpeechEncoder:
    torch.manual_seed(0)
    return SpeechEncoder(WhisperFeatures.from_random(SMALL, seed=0), SpeechAE(96, (16, 24, 32), 20).eval())


def _encode_live(encoder: SpeechEncoder, samples_S: torch.Tensor) -> torch.Tensor:
    state, parts = encoder.initial_state(), []
    for start in range(0, len(samples_S), CHUNK_SAMPLES):
        end = start + CHUNK_SAMPLES
        latents_TWD, state = encoder.encode_chunk(samples_S[start:end], samples_S[end : end + LOOKAHEAD_SAMPLES], state)
        parts.append(latents_TWD)
    return torch.cat(parts)


def test_a_live_session_equals_the_whole_clip(encoder: SpeechEncoder) -> None:
    samples_S = voiced_signal(6 * CHUNK_SAMPLES)

    live_TWD = _encode_live(encoder, samples_S)

    with torch.no_grad():
        whole_BTWD = encoder.speech_ae.encode(clip_features(samples_S, encoder.whisper)[None])
    assert live_TWD.shape == (18, 2, 20)
    torch.testing.assert_close(live_TWD, whole_BTWD[0, 1:], rtol=0, atol=1e-4)


def test_the_future_cannot_change_the_past(encoder: SpeechEncoder) -> None:
    samples_S = voiced_signal(3 * CHUNK_SAMPLES)
    other_S = samples_S.clone()
    other_S[CHUNK_SAMPLES + LOOKAHEAD_SAMPLES :] *= -3

    first_TWD, second_TWD = _encode_live(encoder, samples_S), _encode_live(encoder, other_S)

    assert torch.equal(first_TWD[:3], second_TWD[:3])
    assert not torch.equal(first_TWD[3:6], second_TWD[3:6])


def test_two_runs_agree_bit_for_bit(encoder: SpeechEncoder) -> None:
    samples_S = voiced_signal(2 * CHUNK_SAMPLES)

    assert torch.equal(_encode_live(encoder, samples_S), _encode_live(encoder, samples_S))


def test_the_same_state_twice_gives_the_same_result(encoder: SpeechEncoder) -> None:
    state = encoder.initial_state()
    past_S = state.past_samples_S.clone()
    speech_S = voiced_signal(CHUNK_SAMPLES)

    first_TWD, _ = encoder.encode_chunk(speech_S, NO_LOOKAHEAD, state)
    again_TWD, _ = encoder.encode_chunk(speech_S, NO_LOOKAHEAD, state)

    assert torch.equal(first_TWD, again_TWD)
    assert torch.equal(state.past_samples_S, past_S)


def test_missing_lookahead_is_silence_and_present_lookahead_is_heard(encoder: SpeechEncoder) -> None:
    state, speech_S = encoder.initial_state(), voiced_signal(CHUNK_SAMPLES + LOOKAHEAD_SAMPLES, seed=1)
    chunk_S, lookahead_S = speech_S[:CHUNK_SAMPLES], speech_S[CHUNK_SAMPLES:] + 0.2

    missing_TWD, after_missing = encoder.encode_chunk(chunk_S, NO_LOOKAHEAD, state)
    silent_TWD, _ = encoder.encode_chunk(chunk_S, torch.zeros(LOOKAHEAD_SAMPLES), state)
    heard_TWD, after_heard = encoder.encode_chunk(chunk_S, lookahead_S, state)

    assert torch.equal(missing_TWD, silent_TWD)
    assert not torch.equal(missing_TWD, heard_TWD)
    assert torch.equal(after_missing.past_samples_S, after_heard.past_samples_S)


def test_chunks_of_several_sessions_in_one_pass_equal_each_alone(encoder: SpeechEncoder) -> None:
    speech = [voiced_signal((age + 1) * CHUNK_SAMPLES) * loudness for age, loudness in ((0, 1.0), (1, 0.5), (3, 0.2))]
    chunks = []
    for samples_S in speech:
        state = encoder.initial_state()
        for start in range(0, len(samples_S) - CHUNK_SAMPLES, CHUNK_SAMPLES):
            _, state = encoder.encode_chunk(samples_S[start : start + CHUNK_SAMPLES], NO_LOOKAHEAD, state)
        chunks.append((samples_S[-CHUNK_SAMPLES:], NO_LOOKAHEAD, state))
    together = encoder.encode_chunks(chunks)
    for (latents_TWD, state), chunk in zip(together, chunks, strict=True):
        expected_TWD, expected = encoder.encode_chunk(*chunk)
        torch.testing.assert_close(latents_TWD, expected_TWD, atol=1e-5, rtol=1e-5)
        assert torch.equal(state.past_samples_S, expected.past_samples_S)
        for past, expected_past in zip(state.speech_ae.pasts, expected.speech_ae.pasts, strict=True):
            torch.testing.assert_close(past, expected_past, atol=1e-5, rtol=1e-5)


def test_the_state_keeps_the_last_three_seconds(encoder: SpeechEncoder) -> None:
    samples_S = voiced_signal(5 * CHUNK_SAMPLES)
    state = encoder.initial_state()
    for start in range(0, len(samples_S), CHUNK_SAMPLES):
        _, state = encoder.encode_chunk(samples_S[start : start + CHUNK_SAMPLES], NO_LOOKAHEAD, state)

    assert torch.equal(state.past_samples_S, samples_S[-48_000:])
    assert state.past_samples_S.untyped_storage().nbytes() == 48_000 * 4


def test_different_speech_gives_different_latents() -> None:
    torch.manual_seed(0)
    encoder = SpeechEncoder(WhisperFeatures.from_random(SMALL, seed=0), SpeechAE(96, (16, 24, 32), 20).eval())
    # Random weights say the same of any speech by far the most; what training measures takes that away.
    features_FWX = clip_features(voiced_signal(CHUNK_SAMPLES, seed=2), encoder.whisper)
    encoder.speech_ae.set_feature_statistics(features_FWX.mean(dim=(0, 1)), features_FWX.std(dim=(0, 1)))

    one_TWD = _encode_live(encoder, voiced_signal(CHUNK_SAMPLES, seed=1))
    silence_TWD = _encode_live(encoder, torch.zeros(CHUNK_SAMPLES))

    assert (one_TWD - silence_TWD).abs().mean() > 0.05


def test_runs_in_bfloat16() -> None:
    encoder = SpeechEncoder(WhisperFeatures.from_random(SMALL, seed=0), SpeechAE(96, (16, 24, 32), 20)).eval()
    encoder.to(torch.bfloat16)

    latents_TWD, state = encoder.encode_chunk(voiced_signal(CHUNK_SAMPLES), NO_LOOKAHEAD, encoder.initial_state())

    assert latents_TWD.dtype == torch.bfloat16
    assert state.past_samples_S.dtype == torch.float32


def test_whisper_and_speech_ae_must_fit() -> None:
    with pytest.raises(ValueError, match="expects 1920"):
        SpeechEncoder(WhisperFeatures.from_random(SMALL, seed=0), SpeechAE(1920, (8, 8, 8), 4))


@pytest.mark.parametrize(
    ("samples_S", "lookahead_S", "message"),
    [
        (torch.zeros(CHUNK_SAMPLES - 1), NO_LOOKAHEAD, "a chunk must have"),
        (torch.zeros(1, CHUNK_SAMPLES), NO_LOOKAHEAD, "a chunk must have"),
        (torch.zeros(CHUNK_SAMPLES), torch.zeros(LOOKAHEAD_SAMPLES + 1), "lookahead must have"),
        (torch.zeros(CHUNK_SAMPLES, dtype=torch.int16), NO_LOOKAHEAD, "float32"),
        (torch.full((CHUNK_SAMPLES,), torch.nan), NO_LOOKAHEAD, "finite"),
        (torch.zeros(CHUNK_SAMPLES), torch.full((3,), torch.inf), "finite"),
    ],
)
def test_bad_samples_are_refused(
    encoder: SpeechEncoder, samples_S: torch.Tensor, lookahead_S: torch.Tensor, message: str
) -> None:
    state: SpeechEncoderState = encoder.initial_state()
    with pytest.raises(ValueError, match=message):
        encoder.encode_chunk(samples_S, lookahead_S, state)
