"""Whisper's log-mel spectrogram with a fixed floor, so that a frame depends on its own 400 samples alone.

B batch, S samples at 16 kHz, M mel bins, T mel frames (100 a second)
"""

import functools

import torch
from torch.nn import functional
from transformers.audio_utils import mel_filter_bank

SAMPLE_RATE_HZ = 16_000
FFT_SAMPLES = 400
HOP_SAMPLES = 160

# Whisper clips at `max - 8` (log10 of power), where max is the loudest bin of the clip: what comes later then changes
# what came before. Full-scale speech peaks at 1.3 to 1.6 (measured on four recordings that peak at 0.84 to 1.0), so
# this floor is the one Whisper itself would choose for normal speech. Silence becomes (-6.5 + 4) / 4 = -0.625, as
# the zero padding around normal speech does in Whisper's training.
LOG_MEL_FLOOR = -6.5


@functools.cache
def _hann_window(device: torch.device) -> torch.Tensor:
    return torch.hann_window(FFT_SAMPLES, dtype=torch.float32, device=device)


@functools.cache
def _mel_filters_MK(mel_bins: int, device: torch.device) -> torch.Tensor:
    """The filterbank of transformers' WhisperFeatureExtractor, [mel bins, 201 frequencies].

    Neither this nor the window is a module's buffer: casting the module to bfloat16 must not touch them.
    """
    filters_KM = mel_filter_bank(
        num_frequency_bins=FFT_SAMPLES // 2 + 1,
        num_mel_filters=mel_bins,
        min_frequency=0.0,
        max_frequency=SAMPLE_RATE_HZ / 2,
        sampling_rate=SAMPLE_RATE_HZ,
        norm="slaney",
        mel_scale="slaney",
    )
    return torch.from_numpy(filters_KM.T.copy()).to(device, torch.float32)


def log_mel_spectrogram(samples_BS: torch.Tensor, mel_bins: int) -> torch.Tensor:
    """Turns samples [B, S] (float32, full scale -1 to 1) into [B, mel_bins, S / 160], scaled as Whisper expects it.

    Mel frame t is centred on sample 160 t; the window is zero-padded by 200 samples on each side.
    Raises ValueError unless S is a positive multiple of 160.
    """
    if samples_BS.ndim != 2 or samples_BS.shape[1] == 0 or samples_BS.shape[1] % HOP_SAMPLES:
        raise ValueError(f"samples must be [B, a positive multiple of {HOP_SAMPLES}], not {list(samples_BS.shape)}")
    if samples_BS.dtype != torch.float32:
        raise ValueError(f"samples must be float32, not {samples_BS.dtype}")
    spectrum_BKT = torch.stft(
        functional.pad(samples_BS, (FFT_SAMPLES // 2, FFT_SAMPLES // 2)),
        n_fft=FFT_SAMPLES,
        hop_length=HOP_SAMPLES,
        window=_hann_window(samples_BS.device),
        center=False,
        return_complex=True,
    )
    # The last frame is centred on the first sample after the window; Whisper drops it too.
    power_BKT = spectrum_BKT[..., :-1].abs().square().contiguous()
    mel_BMT = _mel_filters_MK(mel_bins, samples_BS.device) @ power_BKT
    return (mel_BMT.clamp(min=10.0**LOG_MEL_FLOOR).log10() + 4.0) / 4.0
