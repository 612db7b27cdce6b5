"""The network of syncnet_python, in the layout of its weights (`syncnet_v2.model`), and how a face track goes through.

N windows, F frames, S samples, D = 1024 channels
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from visavis.evaluation.originals.mfcc import mfcc
from visavis.evaluation.originals.weight_files import fill, read_state
from visavis.evaluation.sync_scores import SyncScores, sync_scores

SIZE: Final = 224
WINDOW_FRAMES: Final = 5
_CHANNELS: Final = 1024
_SAMPLES_A_FRAME: Final = 640
# MFCC are 100 a second: 4 a frame, 20 a window.
_STEPS_A_FRAME, _WINDOW_STEPS = 4, 20
_WINDOWS_AT_ONCE: Final = 20


class SyncNetV2(nn.Module):
    """Two networks whose outputs are near each other where mouth and speech belong together."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_speech_layer(1, 64),
            nn.MaxPool2d((1, 1), (1, 1)),
            *_speech_layer(64, 192),
            nn.MaxPool2d((3, 3), (1, 2)),
            *_speech_layer(192, 384),
            *_speech_layer(384, 256),
            *_speech_layer(256, 256),
            nn.MaxPool2d((3, 3), (2, 2)),
            nn.Conv2d(256, 512, (5, 4)),
            nn.BatchNorm2d(512),
            nn.ReLU(),
        )
        self.netfcaud = _head()
        self.netfclip = _head()
        self.netcnnlip = nn.Sequential(
            *_picture_layer(3, 96, (5, 7, 7), 2, 0),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_picture_layer(96, 256, (1, 5, 5), 2, 1),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_picture_layer(256, 256, (1, 3, 3), 1, 1),
            *_picture_layer(256, 256, (1, 3, 3), 1, 1),
            *_picture_layer(256, 256, (1, 3, 3), 1, 1),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_picture_layer(256, 512, (1, 6, 6), 1, 0),
        )

    def pictures(self, windows_N35HW: Tensor) -> Tensor:
        """Five frames of a face, 224 x 224, BGR from 0 to 255, [N, 3, 5, 224, 224] -> [N, D]."""
        embedding: Tensor = self.netfclip(self.netcnnlip(windows_N35HW).flatten(1))
        return embedding

    def speech(self, windows_N1MT: Tensor) -> Tensor:
        """0.2 s of MFCC, [N, 1, 13, 20] -> [N, D]."""
        embedding: Tensor = self.netfcaud(self.netcnnaud(windows_N1MT).flatten(1))
        return embedding


def load_syncnet(path: Path) -> SyncNetV2:
    """From `syncnet_v2.model`. Raises EvaluationError."""
    network = SyncNetV2()
    fill(network, read_state(path), path)
    return network


@torch.no_grad()
def track_scores(network: SyncNetV2, faces_FHW3: npt.NDArray[np.uint8], samples_S: npt.NDArray[np.int16]) -> SyncScores:
    """Of a face track: RGB [F, 224, 224, 3] and the sound under it. Raises ValueError for less than six frames."""
    windows = min(len(faces_FHW3), len(samples_S) // _SAMPLES_A_FRAME) - WINDOW_FRAMES
    if windows < 1:
        raise ValueError(f"SyncNet takes tracks of {WINDOW_FRAMES + 1} frames at least")
    bgr_3FHW = torch.from_numpy(faces_FHW3[..., ::-1].copy()).permute(3, 0, 1, 2).float()
    steps_MT = torch.from_numpy(mfcc(samples_S).T.copy()).float()
    pictures, speech = [], []
    for start in range(0, windows, _WINDOWS_AT_ONCE):
        places = range(start, min(windows, start + _WINDOWS_AT_ONCE))
        pictures.append(network.pictures(torch.stack([bgr_3FHW[:, at : at + WINDOW_FRAMES] for at in places])))
        firsts = [_STEPS_A_FRAME * at for at in places]
        speech.append(network.speech(torch.stack([steps_MT[None, :, at : at + _WINDOW_STEPS] for at in firsts])))
    return sync_scores(torch.cat(pictures), torch.cat(speech))


def _speech_layer(before: int, after: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(before, after, (3, 3), padding=(1, 1)), nn.BatchNorm2d(after), nn.ReLU()


def _picture_layer(
    before: int, after: int, kernel: tuple[int, int, int], stride: int, padding: int
) -> tuple[nn.Module, ...]:
    """Strides and padding are those of rows and columns."""
    convolution = nn.Conv3d(before, after, kernel, (1, stride, stride), (0, padding, padding))
    return convolution, nn.BatchNorm3d(after), nn.ReLU()


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, _CHANNELS))
