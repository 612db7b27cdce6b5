"""The fast preset: an adapter with which few steps of one branch do what the student does with all, guided.

B streams, I chunks of a stream, P points of a chunk's way, T latent frames, H W latent rows and columns, C latent
channels
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from visavis.models.a2v_dit import A2VTransformer
from visavis.models.adapter import adapter_parameters
from visavis.models.fast_preset import fast_settings
from visavis.models.flow_matching import add_noise
from visavis.models.generation import SamplingSettings
from visavis.training.errors import TrainingError
from visavis.training.hardware import frozen_autocast
from visavis.training.motion.batch import MotionBatch
from visavis.training.motion.clips import MotionClip
from visavis.training.motion.data import MotionData
from visavis.training.motion.distill_network import FastNetwork
from visavis.training.motion.distill_options import DistillOptions, DistillPhaseOptions
from visavis.training.motion.distill_stream import Stream, Ways, guided_velocity, roll_out
from visavis.training.motion.draw import batch_of, draw_sample, whole_sample
from visavis.training.motion.loss import mouth_error, squares, velocity_error
from visavis.training.motion.noise_levels import SEGMENTS
from visavis.training.motion.options import read_options
from visavis.training.motion.samples import ShownPerson, draw_samples, shown_people
from visavis.training.plan import Phase, Plan
from visavis.training.task import ParameterGroup

_JUDGED_CLIPS: Final = 8


@dataclass(frozen=True, slots=True)
class DistillBatch:
    """Samples, and how a phase lets them stream."""

    motion: MotionBatch
    phase: DistillPhaseOptions


class DistillTask:
    """Fits `visavis.training.task.Task`."""

    def __init__(
        self, network: FastNetwork, student: A2VTransformer, plan: Plan, data: MotionData, options: DistillOptions
    ) -> None:
        """`student` is the transformer without an adapter. Raises TrainingError for options that are not there."""
        self._network = network
        self._student = student.eval().requires_grad_(False)
        self._data = data
        self._options = options
        self.standard: SamplingSettings = data.preset.sampling
        self.fast: SamplingSettings = fast_settings(self.standard)
        self._ways = Ways.of(self.standard, self.fast)
        for phase in plan.phases:
            self._phase_options(phase)

    @property
    def model(self) -> FastNetwork:
        """The student with its adapter."""
        return self._network

    def enter_phase(self, phase: Phase) -> None:
        """Nothing changes."""

    def begin_phase(self, phase: Phase) -> Sequence[ParameterGroup]:
        """The adapter alone."""
        return [ParameterGroup(adapter_parameters(self._network.transformer))]

    def batch(self, phase: Phase, chance: np.random.Generator) -> DistillBatch:
        """Moments of clips drawn at random, with all their conditions."""
        options, clips = self._phase_options(phase), self._data.train
        indices = chance.integers(len(clips), size=options.batch)
        samples = [draw_sample(clips[int(index)], self._options.motion(), chance) for index in indices]
        return DistillBatch(batch_of(samples, torch.ones(len(samples), SEGMENTS), clean_context=True), options)

    def loss(self, forward: nn.Module, batch: DistillBatch, device: torch.device) -> Mapping[str, Tensor]:
        """How far the velocity of a random step of each chunk is from the guided student's over that step."""
        motion, chunks = batch.motion.to(device), batch.phase.chunks
        nn.Module.to(self._student, device)
        steps_BI = torch.randint(self._ways.fast.steps, (len(motion.clean_BTHWC), chunks), device=device)
        with torch.no_grad(), frozen_autocast(device):
            stream, noisy_BITHWC = self._stream(motion, steps_BI, rollout=batch.phase.rollout)
            wanted_BITHWC = guided_velocity(
                self._student, self.standard.guidance_scale, self._ways, noisy_BITHWC, steps_BI, stream
            )
        levels_BI = torch.tensor(self._ways.fast.times, device=device)[steps_BI]
        predicted_BTHWC = forward(noisy_BITHWC, levels_BI, stream).flatten(1, 2)
        wanted_BTHWC = wanted_BITHWC.flatten(1, 2)
        mouth_BTHW = _spoken_again(self._chunks(motion.mouth_BTHW), chunks).flatten(1, 2)
        return {
            "loss": velocity_error(predicted_BTHWC, wanted_BTHWC, mouth_BTHW, self._options.mouth),
            "error": squares(predicted_BTHWC, wanted_BTHWC).mean(),
            "mouth_error": mouth_error(predicted_BTHWC, wanted_BTHWC, mouth_BTHW),
        }

    @torch.no_grad()
    def evaluate(self, averaged: nn.Module, phase: Phase, device: torch.device, samples: Path) -> Mapping[str, float]:
        """How far held-out people's streams are from the guided student's, from the same noise; draws some.

        `difference`: mean square, `_first` and `_last` of a stream's first and last chunk. `spread_last`: the standard
        deviation of the last chunk over that of the student's: away from 1 the stream has drifted.
        """
        assert isinstance(averaged, FastNetwork)
        network, chunks = averaged, self._phase_options(phase).chunks
        clips = self._data.held_out.spread(_JUDGED_CLIPS)
        motion = batch_of([whole_sample(clip) for clip in clips], torch.ones(len(clips), SEGMENTS), True).to(device)
        # In float32, as a CPU streams.
        with torch.autocast(device.type, enabled=False):
            nn.Module.to(self._student, device)
            fast, standard = (
                self._finished(transformer, settings, network, motion, chunks)
                for transformer, settings in (
                    (network.transformer, self.fast),
                    (self._student, self.standard),
                )
            )
            mouth_BTHW = _spoken_again(self._chunks(motion.mouth_BTHW), chunks).flatten(1, 2)
            nn.Module.to(self._data.vae, device)
            draw_samples(self._shown, lambda clip: self._generate(network, clip, device), self._data.vae, samples)
        by_chunk_I = (fast - standard).square().mean(dim=(0, 2, 3, 4, 5))
        return {
            "difference": float(by_chunk_I.mean()),
            "difference_first": float(by_chunk_I[0]),
            "difference_last": float(by_chunk_I[-1]),
            "mouth_difference": float(mouth_error(fast.flatten(1, 2), standard.flatten(1, 2), mouth_BTHW)),
            "spread_last": float(fast[:, -1].std() / standard[:, -1].std()),
        }

    @cached_property
    def _shown(self) -> list[ShownPerson]:
        return shown_people(self._data.held_out_shard, self._data.held_out)

    def _stream(self, motion: MotionBatch, steps_BI: Tensor, *, rollout: bool) -> tuple[Stream, Tensor]:
        """What chunks are made under, and where they stand at the beginning of a step."""
        chunks, portrait_BHWC = steps_BI.shape[1], motion.conditions.portrait_BHWC
        speech_BITWA = _spoken_again(self._heard(self._network, motion), chunks)
        if not rollout:
            made_BITHWC = _spoken_again(self._chunks(motion.clean_BTHWC), chunks)
            levels_BI = torch.tensor(self._ways.fast.times, device=steps_BI.device)[steps_BI]
            noisy_BITHWC = add_noise(
                made_BITHWC, torch.randn_like(made_BITHWC), levels_BI[:, :, None, None, None, None]
            )
            return Stream(portrait_BHWC, speech_BITWA, made_BITHWC), noisy_BITHWC
        seeds = torch.randint(2**62, (len(portrait_BHWC),)).tolist()
        points = roll_out(self._network.transformer, self.fast, portrait_BHWC, speech_BITWA, seeds).float()
        chosen = steps_BI[:, :, None, None, None, None, None].expand(-1, -1, 1, *points.shape[3:])
        return Stream(portrait_BHWC, speech_BITWA, points[:, :, -1]), points.gather(2, chosen).squeeze(2)

    def _finished(
        self,
        transformer: A2VTransformer,
        settings: SamplingSettings,
        network: FastNetwork,
        motion: MotionBatch,
        chunks: int,
    ) -> Tensor:
        speech_BITWA = _spoken_again(self._heard(network, motion), chunks)
        seeds = range(len(speech_BITWA))
        return roll_out(transformer, settings, motion.conditions.portrait_BHWC, speech_BITWA, seeds)[:, :, -1].float()

    def _generate(self, network: FastNetwork, clip: MotionClip, device: torch.device) -> Tensor:
        motion = batch_of([whole_sample(clip)], torch.ones(1, SEGMENTS), True).to(device)
        return self._finished(network.transformer, self.fast, network, motion, SEGMENTS)[0].flatten(0, 1)

    def _heard(self, network: FastNetwork, motion: MotionBatch) -> Tensor:
        """The speech latents of a sample's chunks: `[B, 4, T, W, A]`."""
        return self._chunks(network.speech(motion.conditions, motion.clean_BTHWC.shape[1]))

    def _chunks(self, frames: Tensor) -> Tensor:
        chunks: Tensor = frames.unflatten(1, (-1, self._network.transformer.chunk_latent_frames))
        return chunks

    def _phase_options(self, phase: Phase) -> DistillPhaseOptions:
        options = read_options(DistillPhaseOptions, phase.options, f"phase {phase.name}")
        if options.chunks > SEGMENTS and not options.rollout:
            raise TrainingError(f"phase {phase.name}: more than {SEGMENTS} chunks need rollout = true")
        return options


def _spoken_again(of_sample: Tensor, chunks: int) -> Tensor:
    """A sample's chunks over and over, until there are `chunks` of them."""
    return of_sample[:, torch.arange(chunks, device=of_sample.device) % of_sample.shape[1]]
