"""A signal that sounds a little like speech, for tests that need no recorded voice."""

import torch

from visavis.models.log_mel import SAMPLE_RATE_HZ


def voiced_signal(samples: int, seed: int = 0) -> torch.Tensor:
    """Syllables of a gliding voice with noise, [samples] float32, peaks near 0.5 full scale."""
    generator = torch.Generator().manual_seed(seed)
    seconds = torch.arange(samples) / SAMPLE_RATE_HZ
    pitch_hz = 120 + 30 * torch.sin(2 * torch.pi * 0.7 * seconds + seed)
    phase = 2 * torch.pi * torch.cumsum(pitch_hz, 0) / SAMPLE_RATE_HZ
    voice = sum((torch.sin(harmonic * phase) / harmonic for harmonic in range(1, 20)), torch.zeros(samples))
    syllables = torch.sin(2 * torch.pi * 2.1 * seconds).clamp(min=0)
    return 0.3 * syllables * voice + 0.005 * torch.randn(samples, generator=generator)
