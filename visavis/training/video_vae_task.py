"""Learning the video VAE from single pictures or short clips (REST, section 3.2, appendix E).

Options of a phase: `frames` (1, or 8k + 1), `batch` clips, `crop` pixels (a multiple of 32), `near_mouth` (the share of
crops around the mouth), `varied` (the share of clips that are turned, zoomed, in other colours, perhaps backwards, as
if of other people: `clip_view.py`). Two more may be left out: `start`, the phase begins as the best linear autoencoder
in which a pixel of mouth and eyes counts so much more, { mouth = 15.0, eyes = 8.0 } (else it goes on from the weights
there are); and `straight_rate`, how fast the weights of that linear map learn, relative to the blocks, which start at
nothing (else as fast).

A batch is copied whole and cut where the network computes: 32 clips of 17 pictures take a core 0.05 s so, and with
cutting and drawing masks 1.7 s.

Legend: B batch, F frames, H W picture, E ellipses (mouth, left eye, right eye).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from visavis.models.video_vae import CausalVideoVAE
from visavis.training.clip_view import ClipView, draw_view
from visavis.training.data.regions import mask_of
from visavis.training.errors import TrainingError
from visavis.training.frame_cache import CachedClip, Pixels, Singles
from visavis.training.linear_start import StartClip, start_linear
from visavis.training.plan import Phase, Plan
from visavis.training.sample_sheet import draw_sample_sheet
from visavis.training.task import ParameterGroup
from visavis.training.video_vae_loss import LossWeights, reconstruction_loss
from visavis.training.video_vae_measures import PictureErrors

_START_CLIPS: Final = 1024
_START_FRAMES: Final = 25
_EVALUATED_CLIPS: Final = 24
_EVALUATED_FRAMES: Final = 17


@dataclass(frozen=True, slots=True)
class ClipBatch:
    """Whole pictures [B, F, H, W, 3] with their ellipses [B, F, E, 4], and what is learnt from of each clip."""

    frames: Tensor
    ellipses: Tensor
    views: Sequence[ClipView]

    def on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Video [B, F, 3, crop, crop] in [-1, 1]; how much of each pixel is mouth, and eyes [B, F, crop, crop]."""
        frames, ellipses = (part.to(device, non_blocking=True) for part in (self.frames, self.ellipses))
        seen = [_seen(view, *clip) for view, *clip in zip(self.views, frames, ellipses, strict=True)]
        seen_masks = torch.stack([regions for _, regions in seen])
        return torch.stack([pictures for pictures, _ in seen]), seen_masks[:, 0], seen_masks[:, 1]


class VideoVAETask:
    """A task of the training loop."""

    def __init__(
        self, vae: CausalVideoVAE, plan: Plan, train: Sequence[CachedClip], held_out: Sequence[CachedClip]
    ) -> None:
        self.model = vae
        for parameter in vae.parameters():
            if parameter.ndim == 4:  # weights of convolutions, in the order in which CPUs and GPUs read them fastest
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self._train, self._held_out = train, held_out
        try:
            self._weights = LossWeights(**plan.task_options)
        except TypeError as error:
            raise TrainingError(f"task_options of the video VAE: {error}") from error
        for phase in plan.phases:
            _check(phase, train[0].frames_FHW3.shape)

    def enter_phase(self, phase: Phase) -> None:
        """Sets the weights from the data where the phase says so."""
        if "start" in phase.options:
            start_linear(self.model, lambda: self._start_clips(**phase.options["start"]))

    def begin_phase(self, phase: Phase) -> Sequence[ParameterGroup]:
        """All parameters; what started as the best linear map learns `straight_rate` as fast."""
        straight = list(self.model.straight_parameters())
        known = {id(parameter) for parameter in straight}
        blocks = [parameter for parameter in self.model.parameters() if id(parameter) not in known]
        return [ParameterGroup(blocks), ParameterGroup(straight, phase.options.get("straight_rate", 1.0))]

    def batch(self, phase: Phase, chance: np.random.Generator) -> ClipBatch:
        """Random moments of random clips, cut out around the mouth or anywhere, half of them mirrored."""
        chosen = [self._moment(phase, chance) for _ in range(phase.options["batch"])]
        frames, ellipses, views = zip(*chosen, strict=True)
        return ClipBatch(torch.from_numpy(np.stack(frames)), torch.from_numpy(np.stack(ellipses)), views)

    def loss(self, forward: nn.Module, batch: ClipBatch, device: torch.device) -> Mapping[str, Tensor]:
        """Weighted L1 of pixels and of gradients, and the KL divergence."""
        video, mouth, eyes = batch.on(device)
        reconstruction = forward(video, latent_noise=self._weights.latent_noise)
        return reconstruction_loss(reconstruction, video, mouth, eyes, self._weights)

    def evaluate(self, averaged: nn.Module, phase: Phase, device: torch.device, samples: Path) -> Mapping[str, float]:
        """PSNR on people who were never trained on: of single pictures, and once time is learnt of clips."""
        assert isinstance(averaged, CausalVideoVAE)
        frames = 1 if phase.options["frames"] == 1 else _EVALUATED_FRAMES
        errors, shown = PictureErrors(), []
        for number, clip in enumerate(self._held_out[:_EVALUATED_CLIPS]):
            first = (number * 7) % (len(clip.frames_FHW3) - frames + 1)
            moment = slice(first, first + frames)
            video = as_video(torch.from_numpy(np.array(clip.frames_FHW3[None, moment])), device)
            decoded = averaged.decode(averaged.encode(video)).float()
            mouth, eyes = (torch.from_numpy(clip.mask(region, moment)).to(device) for region in ("mouth", "eyes"))
            errors.add(decoded[0], video[0], mouth, eyes)
            shown.append((video[0, -1].cpu(), decoded[0, -1].cpu(), clip.ellipses_FE4[first + frames - 1, 0]))
        draw_sample_sheet(shown, samples)
        return errors.psnr()

    def _moment(self, phase: Phase, chance: np.random.Generator) -> tuple[Pixels, Singles, ClipView]:
        clip = self._train[int(chance.integers(len(self._train)))]
        frames, crop = phase.options["frames"], phase.options["crop"]
        first = int(chance.integers(len(clip.frames_FHW3) - frames + 1))
        moment = slice(first, first + frames)
        height, width = clip.frames_FHW3.shape[1:3]
        centre_x, centre_y = clip.ellipses_FE4[first, 0, :2] * (width, height)
        mouth = (float(centre_x), float(centre_y)) if chance.random() < phase.options["near_mouth"] else None
        varied = bool(chance.random() < phase.options["varied"])
        view = draw_view(crop, (height, width), mouth, varied=varied, chance=chance)
        return clip.frames_FHW3[moment], clip.ellipses_FE4[moment], view

    def _start_clips(self, mouth: float, eyes: float) -> Iterator[StartClip]:
        """Moments of clips spread over the data set, every other one mirrored, mouths and eyes weighted."""
        frames = min(_START_FRAMES, (len(self._train[0].frames_FHW3) - 1) // 8 * 8 + 1)
        count, device = min(_START_CLIPS, len(self._train)), self.model.device
        for number, index in enumerate(np.linspace(0, len(self._train) - 1, count).astype(int)):
            clip = self._train[int(index)]
            first = (number * 17) % (len(clip.frames_FHW3) - frames + 1)
            moment = slice(first, first + frames)
            ellipses = torch.from_numpy(clip.ellipses_FE4[moment]).to(device)
            in_mouth, in_eyes = (
                mask_of(part, *clip.frames_FHW3.shape[1:3]) for part in (ellipses[:, :1], ellipses[:, 1:])
            )
            weight = (1.0 + mouth * in_mouth + eyes * in_eyes).unsqueeze(1)
            video = as_video(torch.from_numpy(np.array(clip.frames_FHW3[moment])), device)
            yield StartClip(video.flip(-1), weight.flip(-1)) if number % 2 else StartClip(video, weight)


def _seen(view: ClipView, frames_FHW3: Tensor, ellipses_FE4: Tensor) -> tuple[Tensor, Tensor]:
    """What `view` shows of a clip; only that part of it is worked on. Masks: mouth, eyes."""
    height, width = frames_FHW3.shape[1:3]
    rows, columns, part = view.cut(height, width)
    cut_FHW3 = frames_FHW3[:, rows, columns]
    cut_height, cut_width = cut_FHW3.shape[1:3]
    scale = ellipses_FE4.new_tensor([width / cut_width, height / cut_height] * 2)
    offset = ellipses_FE4.new_tensor([columns.start / cut_width, rows.start / cut_height, 0.0, 0.0])
    cut_FE4 = ellipses_FE4 * scale - offset
    masks = torch.stack([mask_of(chosen, cut_height, cut_width) for chosen in (cut_FE4[:, :1], cut_FE4[:, 1:])])
    return part.of(as_video(cut_FHW3, frames_FHW3.device), masks)


def as_video(frames: Tensor, device: torch.device) -> Tensor:
    """Bytes [..., H, W, 3] -> [..., 3, H, W] in [-1, 1] on the device."""
    return frames.to(device, non_blocking=True).movedim(-1, -3).float() / 127.5 - 1.0


def _check(phase: Phase, shape: tuple[int, ...]) -> None:
    options, wanted = phase.options, {"frames", "batch", "crop", "near_mouth", "varied"}
    if set(options) - {"start", "straight_rate"} != wanted:
        raise TrainingError(
            f"phase {phase.name}: its options are {', '.join(sorted(wanted))}, perhaps start and straight_rate"
        )
    start = options.get("start", {"mouth": 0.0, "eyes": 0.0})
    if set(start) != {"mouth", "eyes"} or min(start.values()) < 0:
        raise TrainingError(f"phase {phase.name}: start says how much mouth and eyes count, at least 0")
    clip_frames, size = shape[:2]
    if options["batch"] < 1 or options["frames"] % 8 != 1 or not 1 <= options["frames"] <= clip_frames:
        raise TrainingError(f"phase {phase.name}: batch is at least 1, frames 8k + 1 and at most {clip_frames}")
    if options["crop"] % 32 or not 32 <= options["crop"] <= size:
        raise TrainingError(f"phase {phase.name}: crop is a multiple of 32 and at most {size}")
    for name in ("near_mouth", "varied"):
        if not 0 <= options[name] <= 1:
            raise TrainingError(f"phase {phase.name}: {name} is a share from 0 to 1")
