import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from tests.models.speech_signals import voiced_signal
from visavis.models.log_mel import LOG_MEL_FLOOR, log_mel_spectrogram


def test_equals_whispers_own_where_its_floor_does_not_reach() -> None:
    samples_S = voiced_signal(32_000)
    samples_S *= 0.9 / samples_S.abs().max()
    extractor = WhisperFeatureExtractor()
    theirs = extractor(samples_S.numpy(), sampling_rate=16_000, padding="longest", return_tensors="np")[
        "input_features"
    ]

    ours = log_mel_spectrogram(samples_S[None], 80).numpy()

    # At the ends they mirror the signal and we pad zeros.
    theirs, ours = theirs[:, :, 2:-2], ours[:, :, 2:-2]
    floor = max((LOG_MEL_FLOOR + 4) / 4, float(theirs.min()))
    above = (theirs > floor + 1e-3) & (ours > floor + 1e-3)
    assert above.mean() > 0.5
    assert np.abs(theirs - ours)[above].max() < 1e-3


def test_full_scale_speech_gets_the_floor_whisper_would_choose() -> None:
    samples_S = voiced_signal(32_000)
    samples_S *= 0.95 / samples_S.abs().max()

    log_mel = log_mel_spectrogram(samples_S[None], 80)

    assert float(log_mel.max() * 4 - 4) - 8 == pytest.approx(LOG_MEL_FLOOR, abs=1.0)


def test_silence_is_the_floor() -> None:
    log_mel = log_mel_spectrogram(torch.zeros(1, 1_600), 80)

    assert log_mel.shape == (1, 80, 10)
    torch.testing.assert_close(log_mel, torch.full_like(log_mel, -0.625))


def test_a_loud_end_does_not_change_a_quiet_beginning() -> None:
    quiet_S = 0.01 * voiced_signal(16_000)
    loud_S = quiet_S.clone()
    loud_S[8_000:] += 0.9 * torch.sin(torch.arange(8_000) * 0.3)

    quiet, loud = log_mel_spectrogram(torch.stack([quiet_S, loud_S]), 80)

    # Mel frame t ends at sample 160 t + 200.
    assert torch.equal(quiet[:, :48], loud[:, :48])
    assert not torch.equal(quiet[:, 49:], loud[:, 49:])


@pytest.mark.parametrize("samples_BS", [torch.zeros(160), torch.zeros(1, 0), torch.zeros(1, 161)])
def test_a_wrong_shape_is_refused(samples_BS: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="multiple of 160"):
        log_mel_spectrogram(samples_BS, 80)


def test_another_type_is_refused() -> None:
    with pytest.raises(ValueError, match="float32"):
        log_mel_spectrogram(torch.zeros(1, 160, dtype=torch.float64), 80)
