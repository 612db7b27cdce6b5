"""Draws a batch: which moments of which clips, how noisy, and what is dropped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from visavis.training.motion.batch import Conditions, MotionBatch
from visavis.training.motion.clips import MotionClip, MotionClips
from visavis.training.motion.noise_levels import SEGMENTS, NoiseOptions, draw_levels, draw_schedule
from visavis.training.motion.options import MotionOptions


@dataclass(frozen=True, slots=True)
class Sample:
    """Four chunks of a clip with one picture of the person."""

    clip: MotionClip
    first_chunk: int
    portrait_HWC: Tensor
    has_identity: bool
    has_speech: bool


def draw_batch(
    clips: MotionClips,
    samples: int,
    motion: MotionOptions,
    shift: float,
    clean_context: bool,
    chance: np.random.Generator,
) -> MotionBatch:
    """A batch; with `clean_context` every chunk has a level of its own, whatever the chunks before it have."""
    drawn = [draw_sample(clips[int(index)], motion, chance) for index in chance.integers(len(clips), size=samples)]
    noise = NoiseOptions(shift, motion.asynchronous, motion.uniform)
    levels_BS = _any_levels(chance, samples, noise) if clean_context else draw_levels(chance, samples, noise)
    return batch_of(drawn, torch.from_numpy(levels_BS), clean_context)


def draw_sample(clip: MotionClip, motion: MotionOptions, chance: np.random.Generator) -> Sample:
    """Any four chunks in a row. The ID latent is of the clip's first frame, or of any (`other_portrait`)."""
    first_chunk = int(chance.integers(clip.chunks - SEGMENTS + 1))
    references = clip.picture.references_KHWC
    other = references[int(chance.integers(len(references)))]
    portrait = other if chance.random() < motion.other_portrait else clip.picture.latents_THWC[0]
    dropped = chance.random()
    both, identity = motion.drop_both, motion.drop_both + motion.drop_identity
    has_identity = dropped >= identity
    has_speech = both <= dropped < identity or dropped >= identity + motion.drop_speech
    return Sample(clip, first_chunk, portrait, has_identity, has_speech)


def whole_sample(clip: MotionClip) -> Sample:
    """The first four chunks of a clip as it is, with its first frame."""
    return Sample(clip, 0, clip.picture.latents_THWC[0], has_identity=True, has_speech=True)


def batch_of(samples: list[Sample], levels_BS: Tensor, clean_context: bool) -> MotionBatch:
    """Joins samples; their latents stay in float16 until they are on the device."""
    moments = [_moment(sample) for sample in samples]
    return MotionBatch(
        clean_BTHWC=torch.stack([s.clip.picture.latents_THWC[at] for s, at in zip(samples, moments, strict=True)]),
        mouth_BTHW=torch.stack([s.clip.picture.mouth_THW[at] for s, at in zip(samples, moments, strict=True)]),
        levels_BS=levels_BS,
        clean_context=clean_context,
        conditions=Conditions(
            portrait_BHWC=torch.stack([sample.portrait_HWC for sample in samples]),
            states_BNPX=torch.stack([sample.clip.states_NPX for sample in samples]),
            first_chunk_B=torch.tensor([sample.first_chunk for sample in samples]),
            has_identity_B=torch.tensor([sample.has_identity for sample in samples]),
            has_speech_B=torch.tensor([sample.has_speech for sample in samples]),
        ),
    )


def _moment(sample: Sample) -> slice:
    """The latent frames of the sample's chunks; latent frame 0, the first picture, is none of them."""
    a_chunk = (len(sample.clip.picture.latents_THWC) - 1) // sample.clip.chunks
    first = 1 + a_chunk * sample.first_chunk
    return slice(first, first + a_chunk * SEGMENTS)


def _any_levels(
    chance: np.random.Generator, samples: int, noise: NoiseOptions
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    schedules = (draw_schedule(chance, noise.shift, noise.uniform) for _ in range(samples))
    return np.stack([chance.choice(schedule, size=SEGMENTS) for schedule in schedules])
