"""What `visavis train teacher` and `visavis train student` learn: the velocity from noisy latents to clean ones.

B samples, T latent frames, H W latent rows and columns, C latent channels
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from visavis.models.checkpoints import placed
from visavis.models.flow_matching import add_noise
from visavis.models.generation import SamplingPlan, begin_session, generate_chunk, prepare_sampling
from visavis.models.read_generation import generate_rolling
from visavis.training.motion.batch import MotionBatch
from visavis.training.motion.clips import MotionClip
from visavis.training.motion.data import MotionData
from visavis.training.motion.draw import batch_of, draw_batch, whole_sample
from visavis.training.motion.loss import mouth_error, squares, velocity_error
from visavis.training.motion.measures import held_out_measures
from visavis.training.motion.network import MotionNetwork
from visavis.training.motion.noise_levels import SEGMENTS
from visavis.training.motion.options import MotionOptions, StudentOptions, TeacherOptions, read_options
from visavis.training.motion.samples import ShownPerson, draw_samples, shown_people
from visavis.training.plan import Phase, Plan
from visavis.training.task import ParameterGroup

_EVALUATED_CLIPS = 16
_SAMPLE_SEED = 0


class MotionTask:
    """What the tasks have in common. Fits `visavis.training.task.Task` once `predict` and `generate` are there."""

    phase_options: ClassVar[type[TeacherOptions] | type[StudentOptions]]

    def __init__(self, network: MotionNetwork, plan: Plan, data: MotionData) -> None:
        """Raises TrainingError for a plan with options that are not there."""
        self._network = network
        self.data = data
        self.options = self.check(plan)

    @classmethod
    def check(cls, plan: Plan) -> MotionOptions:
        """The plan's own options. Raises TrainingError for those, or a phase's, that are not there."""
        for phase in plan.phases:
            cls.options_of(phase)
        return read_options(MotionOptions, plan.task_options, f"task_options of a {plan.task}")

    @property
    def model(self) -> MotionNetwork:
        """Transformer and SpeechAE."""
        return self._network

    @classmethod
    def options_of(cls, phase: Phase) -> TeacherOptions | StudentOptions:
        """Raises TrainingError for options that are not there."""
        return read_options(cls.phase_options, phase.options, f"phase {phase.name}")

    def enter_phase(self, phase: Phase) -> None:
        """Nothing changes."""

    def begin_phase(self, phase: Phase) -> Sequence[ParameterGroup]:
        """All of the transformer, and the SpeechAE's encoder unless it is held still."""
        groups = [ParameterGroup(list(self._network.transformer.parameters()))]
        speech_rate = self.options_of(phase).speech_rate
        if speech_rate:
            groups.append(ParameterGroup(self._network.speech_parameters(), speech_rate))
        return groups

    def batch(self, phase: Phase, chance: np.random.Generator) -> MotionBatch:
        """Moments of clips drawn at random."""
        return self.draw(self.options_of(phase).batch, False, chance)

    def draw(self, samples: int, clean_context: bool, chance: np.random.Generator) -> MotionBatch:
        """`draw_batch` of the training clips."""
        return draw_batch(
            self.data.train, samples, self.options, self.data.preset.sampling.shift, clean_context, chance
        )

    def predict(self, network: nn.Module, batch: MotionBatch, noise_BTHWC: Tensor) -> Tensor:
        """The velocities that `network` predicts from a batch on its device."""
        raise NotImplementedError

    def generate(self, network: MotionNetwork, clip: MotionClip) -> Tensor:
        """Video latents [T, H, W, C] of a clip's speech, from its first picture."""
        raise NotImplementedError

    def loss(self, forward: nn.Module, batch: MotionBatch, device: torch.device) -> Mapping[str, Tensor]:
        """The weighted error, and the errors overall and in the mouth."""
        batch = batch.to(device)
        noise = torch.randn_like(batch.clean_BTHWC)
        return self.errors(self.predict(forward, batch, noise), batch, noise)

    def errors(self, predicted_BTHWC: Tensor, batch: MotionBatch, noise_BTHWC: Tensor) -> dict[str, Tensor]:
        """Compares velocities with what they should be (Eq. 17 to 20)."""
        wanted = noise_BTHWC - batch.clean_BTHWC
        return {
            "loss": velocity_error(predicted_BTHWC, wanted, batch.mouth_BTHW, self.options.mouth),
            "error": squares(predicted_BTHWC, wanted).mean(),
            "mouth_error": mouth_error(predicted_BTHWC, wanted, batch.mouth_BTHW),
        }

    def evaluate(self, averaged: nn.Module, phase: Phase, device: torch.device, samples: Path) -> Mapping[str, float]:
        """Errors on held-out people; draws some of them to `samples` and to an MP4 beside it."""
        assert isinstance(averaged, MotionNetwork)
        network = averaged
        clips = self.data.held_out.spread(_EVALUATED_CLIPS)
        measures = held_out_measures(clips, lambda batch, noise: self.predict(network, batch, noise), device)
        # Samples in float32, as a CPU makes them.
        with torch.autocast(device.type, enabled=False):
            vae = placed(self.data.vae, device, torch.float32)
            draw_samples(self._shown, lambda clip: self.generate(network, clip), vae, samples)
        return measures

    @cached_property
    def _shown(self) -> list[ShownPerson]:
        return shown_people(self.data.held_out_shard, self.data.held_out)

    def sampling(self, network: MotionNetwork) -> SamplingPlan:
        """How samples are made while training: as the preset says, with the plan's guidance."""
        settings = replace(self.data.preset.sampling, guidance_scale=self.options.guidance_scale)
        return prepare_sampling(network.transformer, settings, *[self.data.preset.latent_rows] * 2)

    def heard(self, network: MotionNetwork, clip: MotionClip, chunks: int) -> Sequence[Tensor]:
        """The speech latents [3, 2, A] of a clip's first chunks."""
        batch = batch_of([whole_sample(clip)], torch.ones(1, SEGMENTS), clean_context=True)
        frames = network.transformer.chunk_latent_frames
        conditions = batch.conditions.to(network.transformer.proj_in.weight.device)
        chunks_TWA: Sequence[Tensor] = network.speech(conditions, chunks * frames)[0].split(frames)
        return chunks_TWA


class TeacherTask(MotionTask):
    """The non-streaming teacher (sections 3.3 and C.6.1)."""

    phase_options = TeacherOptions

    def predict(self, network: nn.Module, batch: MotionBatch, noise_BTHWC: Tensor) -> Tensor:
        """All latent frames at once."""
        velocities: Tensor = network(batch.noisy(noise_BTHWC), batch.levels_BS, batch.conditions)
        return velocities

    def generate(self, network: MotionNetwork, clip: MotionClip) -> Tensor:
        """The window of READ, rolling over the clip."""
        speech = self.heard(network, clip, clip.chunks)
        portrait_THWC = clip.picture.latents_THWC[:1].float()
        return torch.cat(list(generate_rolling(speech, portrait_THWC, _SAMPLE_SEED, self.sampling(network))))


class StudentTask(MotionTask):
    """The streaming student before distillation (section C.6.2)."""

    phase_options = StudentOptions

    def __init__(self, network: MotionNetwork, plan: Plan, data: MotionData) -> None:
        """As `MotionTask`."""
        super().__init__(network, plan, data)
        self._context_noise = 0.0

    def begin_phase(self, phase: Phase) -> Sequence[ParameterGroup]:
        """As `MotionTask.begin_phase`."""
        options = self.options_of(phase)
        assert isinstance(options, StudentOptions)
        self._context_noise = options.context_noise
        return super().begin_phase(phase)

    def batch(self, phase: Phase, chance: np.random.Generator) -> MotionBatch:
        """As the teacher's; a share of batches pairs a clean context with chunks at any noise."""
        options = self.options_of(phase)
        assert isinstance(options, StudentOptions)
        return self.draw(options.batch, bool(chance.random() < options.clean_context), chance)

    def loss(self, forward: nn.Module, batch: MotionBatch, device: torch.device) -> Mapping[str, Tensor]:
        """The weighted error, and the errors overall and in the mouth."""
        batch = batch.to(device)
        noise = torch.randn_like(batch.clean_BTHWC)
        context = self.nearly_clean(batch) if batch.clean_context else None
        predicted = forward(batch.noisy(noise), batch.levels_BS, batch.conditions, context)
        return self.errors(predicted, batch, noise)

    def nearly_clean(self, batch: MotionBatch) -> Tensor:
        """The clean latents with up to `context_noise` of noise in each sample."""
        clean = batch.clean_BTHWC
        levels = self._context_noise * torch.rand(len(clean), 1, 1, 1, 1, device=clean.device)
        return add_noise(clean, torch.randn_like(clean), levels)

    def predict(self, network: nn.Module, batch: MotionBatch, noise_BTHWC: Tensor) -> Tensor:
        """As a live session: each chunk after the clean one before it."""
        velocities: Tensor = network(batch.noisy(noise_BTHWC), batch.levels_BS, batch.conditions, batch.clean_BTHWC)
        return velocities

    def generate(self, network: MotionNetwork, clip: MotionClip) -> Tensor:
        """Chunk after chunk, as it streams."""
        plan = self.sampling(network)
        portrait_THWC = clip.picture.latents_THWC[:1].float()
        state = begin_session(network.transformer, portrait_THWC, _SAMPLE_SEED, plan.settings, plan=plan)
        made = []
        for speech_TWA in self.heard(network, clip, clip.chunks):
            latents_THWC, state = generate_chunk(speech_TWA, state)
            made.append(latents_THWC)
        return torch.cat(made)
