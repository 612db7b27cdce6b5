"""Learning our SyncNet: of the windows of one clip, each mouth must find its own speech (InfoNCE in both directions).

All wrong answers come from the same clip, so neither face nor voice gives the right one away, time alone does. Options
of a phase: `batch` clips and `windows` of each.

B clips, W windows of each, F frames, K pixels, S samples, D embedding
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from visavis.evaluation.crop_cache import CroppedClip
from visavis.evaluation.sync_net import WINDOW_FRAMES, SyncNet, all_windows, speech_spectrogram
from visavis.training.errors import TrainingError
from visavis.training.plan import Phase
from visavis.training.task import ParameterGroup

_TEMPERATURE: Final = 0.07
# Frames from one window of a clip to the next: near ones teach the moment, far ones the sound.
_STRIDES: Final = (1, 2, 4)
_MOST_SHIFT_PIXELS: Final = 2
_SOFT_SHARE: Final = 0.4
_NOISE_LEVELS: Final = 3.0
_GAIN_OCTAVES: Final = 1.0
_NEAR_FRAMES: Final = 1


@dataclass(frozen=True, slots=True)
class SyncBatch:
    """Mouths [B W, 5, K, K] from 0 to 1 and spectrograms [B W, 80, 20]; the W windows of a clip in a row."""

    mouths: Tensor
    mels: Tensor
    windows: int


class SyncNetTask:
    """Fits `visavis.training.task.Task`."""

    def __init__(self, network: SyncNet, training: Sequence[CroppedClip], held_out: Sequence[CroppedClip]) -> None:
        """Clips in silence are left out: nothing in them tells one moment from another."""
        self._network = network
        self._training, self._held_out = ([clip for clip in part if clip.voice] for part in (training, held_out))
        if not self._training or not self._held_out:
            raise TrainingError("nobody speaks in these clips")

    @property
    def model(self) -> SyncNet:
        return self._network

    def enter_phase(self, phase: Phase) -> None:
        """Nothing changes."""

    def begin_phase(self, phase: Phase) -> Sequence[ParameterGroup]:
        _check(phase, len(self._training[0].mouths_FKK))
        return [ParameterGroup(list(self._network.parameters()))]

    def batch(self, phase: Phase, chance: np.random.Generator) -> SyncBatch:
        """Windows of random clips: mirrored, moved, softened, noisy; louder, quieter."""
        windows = phase.options["windows"]
        mouths, mels = [], []
        for index in chance.integers(len(self._training), size=int(phase.options["batch"])):
            clip = self._training[int(index)]
            last = len(clip.mouths_FKK) - WINDOW_FRAMES
            stride = int(chance.choice([stride for stride in _STRIDES if stride * (windows - 1) <= last]))
            first = int(chance.integers(last - stride * (windows - 1) + 1))
            gain = np.float32(2 ** chance.uniform(-_GAIN_OCTAVES, _GAIN_OCTAVES))
            mel = speech_spectrogram(np.clip(clip.samples_S * gain, -1, 1))
            chosen = all_windows(_varied(clip.mouths_FKK, chance), mel, range(first, last + 1, stride)[:windows])
            mouths.append(chosen[0])
            mels.append(chosen[1])
        return SyncBatch(torch.cat(mouths), torch.cat(mels), windows)

    def loss(self, forward: nn.Module, batch: SyncBatch, device: torch.device) -> Mapping[str, Tensor]:
        """Cross entropy among the windows of a clip; `right` is how often the right one is the nearest."""
        pictures_ND, speech_ND = forward(batch.mouths.to(device), batch.mels.to(device))
        pictures_BWD, speech_BWD = (side.float().unflatten(0, (-1, batch.windows)) for side in (pictures_ND, speech_ND))
        likeness_BWW = pictures_BWD @ speech_BWD.transpose(1, 2) / _TEMPERATURE
        wanted_N = torch.arange(batch.windows, device=device).repeat(len(likeness_BWW))
        forth, back = likeness_BWW.flatten(0, 1), likeness_BWW.transpose(1, 2).flatten(0, 1)
        loss = (functional.cross_entropy(forth, wanted_N) + functional.cross_entropy(back, wanted_N)) / 2
        return {"loss": loss, "right": (forth.argmax(dim=1) == wanted_N).float().mean()}

    def evaluate(self, averaged: nn.Module, phase: Phase, device: torch.device, samples: Path) -> Mapping[str, float]:
        """On held-out people and voices: scores of their own speech, how often the offset is found, and scores of the
        next clip's speech. There is nothing to look at, so no picture is drawn.
        """
        assert isinstance(averaged, SyncNet)
        clips = self._held_out
        own = [averaged.scores(clip.mouths_FKK, clip.samples_S) for clip in clips]
        nexts = [*clips[1:], clips[0]]
        strange = [averaged.scores(a.mouths_FKK, b.samples_S) for a, b in zip(clips, nexts, strict=True)]
        return {
            "confidence": float(np.mean([each.confidence for each in own])),
            "distance": float(np.mean([each.distance for each in own])),
            "offset_found": float(np.mean([abs(each.offset_frames) <= _NEAR_FRAMES for each in own])),
            "confidence_of_strange_speech": float(np.mean([each.confidence for each in strange])),
            "distance_of_strange_speech": float(np.mean([each.distance for each in strange])),
        }


def _varied(mouths_FKK: npt.NDArray[np.uint8], chance: np.random.Generator) -> npt.NDArray[np.uint8]:
    """The whole clip in one way: generated mouths are softer, and never cut out quite the same."""
    mouths = mouths_FKK[:, :, ::-1] if chance.random() < 0.5 else mouths_FKK
    rows, columns = chance.integers(-_MOST_SHIFT_PIXELS, _MOST_SHIFT_PIXELS + 1, size=2)
    pixels = torch.from_numpy(np.roll(mouths, (rows, columns), axis=(1, 2)).astype(np.float32))
    if chance.random() < _SOFT_SHARE:
        pixels = functional.avg_pool2d(pixels, 3, stride=1, padding=1, count_include_pad=False)
    noise = chance.standard_normal(pixels.shape, dtype=np.float32) * chance.uniform(0, _NOISE_LEVELS)
    return np.asarray((pixels.numpy() + noise).round().clip(0, 255), dtype=np.uint8)


def _check(phase: Phase, frames: int) -> None:
    if set(phase.options) != {"batch", "windows"} or phase.options["batch"] < 1:
        raise TrainingError(f"phase {phase.name}: options of a SyncNet are batch (1 or more) and windows")
    most = frames - WINDOW_FRAMES
    if not 2 <= phase.options["windows"] <= most:
        raise TrainingError(f"phase {phase.name}: windows are 2 to {most} for clips of {frames} frames")
