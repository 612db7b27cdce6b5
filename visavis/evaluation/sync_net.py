"""A network of our own that hears whether a mouth belongs to speech, after SyncNet (Chung and Zisserman, 2016).

Five frames of a mouth and the 0.2 s of speech under them become vectors that lie near each other where they belong
together. It is small, it has learnt from rendered people, and its scores are called by its own names: they cannot be
compared with those of SyncNet's own weights.

N windows, F frames, S samples, K pixels of a cut-out's side (`face_crops.MOUTH`), M mel bins, C channels, D embedding
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional

from visavis.evaluation.sync_scores import SyncScores, sync_scores
from visavis.models.log_mel import log_mel_spectrogram

WINDOW_FRAMES: Final = 5
SAMPLES_PER_FRAME: Final = 640
# Mel frames are 100 a second.
STEPS_PER_FRAME: Final = 4
WINDOW_STEPS: Final = WINDOW_FRAMES * STEPS_PER_FRAME
MEL_BINS: Final = 80
_GROUPS: Final = 8
_AT_ONCE: Final = 128


class SyncNet(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Two small convolutional networks with one embedding space; vectors have length 1."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self, pixels: int = 48, picture_widths: Sequence[int] = (32, 64, 128, 128), embedding: int = 128
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        speech_widths = tuple(width // 2 for width in picture_widths)
        self.picture_body = nn.Sequential(*_layers([WINDOW_FRAMES, *picture_widths]))
        self.speech_body = nn.Sequential(*_layers([1, *speech_widths]))
        self.picture_head = nn.Linear(picture_widths[-1] * _halved(pixels, len(picture_widths)) ** 2, embedding)
        cells = _halved(MEL_BINS, len(speech_widths)) * _halved(WINDOW_STEPS, len(speech_widths))
        self.speech_head = nn.Linear(speech_widths[-1] * cells, embedding)

    def forward(self, mouths_NWKK: Tensor, mels_NMT: Tensor) -> tuple[Tensor, Tensor]:
        """Grey mouths [N, 5, K, K] from 0 to 1, spectrograms [N, 80, 20] -> vectors [N, D] of both."""
        # Light and skin say nothing about time: only what differs from the window's mean is looked at.
        level = mouths_NWKK.mean(dim=(1, 2, 3), keepdim=True)
        spread = mouths_NWKK.std(dim=(1, 2, 3), keepdim=True) + 1e-3
        pictures = self.picture_head(self.picture_body((mouths_NWKK - level) / spread).flatten(1))
        speech = self.speech_head(self.speech_body(mels_NMT[:, None]).flatten(1))
        return functional.normalize(pictures, dim=1), functional.normalize(speech, dim=1)

    @torch.no_grad()
    def scores(self, mouths_FKK: npt.NDArray[np.uint8], samples_S: npt.NDArray[np.float32]) -> SyncScores:
        """Of a clip: its mouths in grey, and its speech, 640 samples a frame. Raises ValueError below six frames."""
        windows = min(len(mouths_FKK), len(samples_S) // SAMPLES_PER_FRAME) - WINDOW_FRAMES
        if windows < 1:
            raise ValueError(f"sync is judged on {WINDOW_FRAMES + 1} frames at least")
        mouths, mels = all_windows(mouths_FKK, speech_spectrogram(samples_S), range(windows))
        parts = zip(mouths.split(_AT_ONCE), mels.split(_AT_ONCE), strict=True)
        pictures, speech = zip(*(self(a.to(self.device), b.to(self.device)) for a, b in parts), strict=True)
        return sync_scores(torch.cat(pictures).cpu(), torch.cat(speech).cpu())


def speech_spectrogram(samples_S: npt.NDArray[np.float32]) -> Tensor:
    """[80, 4 F]; samples beyond a whole frame are left out."""
    whole = samples_S[: len(samples_S) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME]
    return log_mel_spectrogram(torch.from_numpy(np.ascontiguousarray(whole, dtype=np.float32))[None], MEL_BINS)[0]


def all_windows(mouths_FKK: npt.NDArray[np.uint8], mel_MT: Tensor, firsts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The windows that begin at these frames: mouths [N, 5, K, K] from 0 to 1, spectrograms [N, 80, 20]."""
    mouths = np.stack([mouths_FKK[first : first + WINDOW_FRAMES] for first in firsts])
    mels = torch.stack([mel_MT[:, STEPS_PER_FRAME * first :][:, :WINDOW_STEPS] for first in firsts])
    return torch.from_numpy(mouths).float() / 255, mels


def grey(pictures_FKK3: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Luma of cut-outs, [F, K, K]."""
    weights = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)
    return np.asarray(np.rint(pictures_FKK3.astype(np.float32) @ weights), dtype=np.uint8)


def _layers(widths: Sequence[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, 2, padding=1), nn.GroupNorm(min(_GROUPS, after), after), nn.SiLU()]
    return layers


def _halved(size: int, times: int) -> int:
    for _ in range(times):
        size = -(-size // 2)
    return size
