"""How well a network predicts velocities on people it never met: the training's own measure, without its chance.

B samples, T latent frames, S segments
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean
from typing import Final

import torch
from torch import Tensor

from visavis.training.motion.batch import MotionBatch
from visavis.training.motion.clips import MotionClip
from visavis.training.motion.draw import batch_of, whole_sample
from visavis.training.motion.loss import mouth_error, squares
from visavis.training.motion.noise_levels import SEGMENTS

# From where only details are missing to where there is nothing but noise.
JUDGED_LEVELS: Final = (0.3, 0.6, 0.9, 1.0)
# At this level the mouth's shape must come from the speech.
_LISTENING_LEVEL: Final = 0.9
_BATCH: Final = 8

# (a batch on the device, its noise) -> velocities [B, T, H, W, C]
Predict = Callable[[MotionBatch, Tensor], Tensor]


def held_out_measures(clips: Sequence[MotionClip], predict: Predict, device: torch.device) -> dict[str, float]:
    """Mean square errors of the velocity, overall and in the mouth, by level of noise; the same noise every time.

    `speech_gain`: by which share the mouth's error is smaller with the clip's own speech than with another one's, at
    level 0.9. 0: the network does not listen.
    """
    errors: dict[str, list[float]] = {}
    generator = torch.Generator().manual_seed(0)
    for batch in _batches(clips, device):
        noise = torch.randn(batch.clean_BTHWC.shape, generator=generator).to(device)
        for level in JUDGED_LEVELS:
            _add(errors, f"_{level:g}", batch.at_level(level), noise, predict)
        if len(batch.levels_BS) > 1:
            others = batch.at_level(_LISTENING_LEVEL).heard_as([*range(1, len(batch.levels_BS)), 0])
            _add(errors, "_other_speech", others, noise, predict)
    means = {name: fmean(values) for name, values in errors.items()}
    own, other = means[f"mouth_error_{_LISTENING_LEVEL:g}"], means.pop("mouth_error_other_speech", None)
    means.pop("error_other_speech", None)
    overall = {name: fmean(means[f"{name}_{level:g}"] for level in JUDGED_LEVELS) for name in ("error", "mouth_error")}
    return {**overall, **({} if other is None else {"speech_gain": 1.0 - own / other}), **means}


def _add(errors: dict[str, list[float]], suffix: str, batch: MotionBatch, noise: Tensor, predict: Predict) -> None:
    predicted, wanted = predict(batch, noise), noise - batch.clean_BTHWC
    errors.setdefault(f"error{suffix}", []).append(float(squares(predicted, wanted).mean()))
    errors.setdefault(f"mouth_error{suffix}", []).append(float(mouth_error(predicted, wanted, batch.mouth_BTHW)))


def _batches(clips: Sequence[MotionClip], device: torch.device) -> Iterator[MotionBatch]:
    for start in range(0, len(clips), _BATCH):
        samples = [whole_sample(clip) for clip in clips[start : start + _BATCH]]
        yield batch_of(samples, torch.ones(len(samples), SEGMENTS), clean_context=True).to(device)
