"""Asynchronous Streaming Distillation: a frozen teacher that sees whole clips guides the streaming student (C.6.3).

B samples, T latent frames, S segments, H W latent rows and columns, C latent channels
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from visavis.models.generation import SamplingPlan
from visavis.training.hardware import frozen_autocast
from visavis.training.motion.asd_options import AsdOptions
from visavis.training.motion.batch import MotionBatch
from visavis.training.motion.contrastive_loss import contrastive_loss
from visavis.training.motion.data import MotionData
from visavis.training.motion.draw import batch_of, whole_sample
from visavis.training.motion.loss import squares
from visavis.training.motion.network import MotionNetwork, StudentNetwork, TeacherNetwork
from visavis.training.motion.noise_levels import SEGMENTS
from visavis.training.motion.options import StudentOptions
from visavis.training.motion.smoothness_loss import smoothness_loss
from visavis.training.motion.task import StudentTask
from visavis.training.plan import Phase, Plan

_COMPARED_LEVELS: Final = (0.3, 0.6, 0.9)
_COMPARED_CLIPS: Final = 8


class AsdTask(StudentTask):
    """L = L_student + alpha L_CON + beta L_SMO (Eq. 24), or what an ablation leaves of it."""

    def __init__(
        self, network: StudentNetwork, teacher: TeacherNetwork | None, plan: Plan, data: MotionData, asd: AsdOptions
    ) -> None:
        """`plan` is that of a student (`split_plan`); `teacher` is None where no term needs one."""
        assert (teacher is not None) == asd.needs_teacher, "a teacher is there where it is needed"
        network.cache = asd.cache
        super().__init__(network, plan, data)
        self._asd = asd
        self._teacher = None if teacher is None else teacher.eval().requires_grad_(False)

    def batch(self, phase: Phase, chance: np.random.Generator) -> MotionBatch:
        """Levels of noise as the teacher learnt them; a share of the students then has clean contexts all the same.

        A student alone may pair such a context with any levels. The teacher has only ever seen ascending or equal ones.
        """
        options = self.options_of(phase)
        assert isinstance(options, StudentOptions)
        clean_context = bool(chance.random() < options.clean_context)
        return replace(self.draw(options.batch, False, chance), clean_context=clean_context)

    def loss(self, forward: nn.Module, batch: MotionBatch, device: torch.device) -> Mapping[str, Tensor]:
        """The student's errors, and the two terms. Noise, levels and dropouts are the same for both networks."""
        batch = batch.to(device)
        noise = torch.randn_like(batch.clean_BTHWC)
        noisy = batch.noisy(noise)
        context = self.nearly_clean(batch) if batch.clean_context else None
        student: Tensor = forward(noisy, batch.levels_BS, batch.conditions, context)
        measures = self.errors(student, batch, noise)
        if self._teacher is None:
            return measures
        teacher = self._taught(noisy, batch)
        contrastive = contrastive_loss(student, teacher, self._asd.temperature)
        smoothness = smoothness_loss(student, teacher)
        terms = self._asd.contrastive_weight * contrastive + self._asd.smoothness_weight * smoothness
        return {
            **measures,
            "loss": measures["loss"] + terms,
            "contrastive": contrastive,
            "smoothness": smoothness,
            "teacher_gap": squares(student, teacher).mean(),
        }

    def evaluate(self, averaged: nn.Module, phase: Phase, device: torch.device, samples: Path) -> Mapping[str, float]:
        """As a student, and how far from the teacher's its velocities are on held-out people."""
        measures = dict(super().evaluate(averaged, phase, device, samples))
        if self._teacher is not None:
            measures["teacher_gap"] = self._gap(averaged, device)
        return measures

    def sampling(self, network: MotionNetwork) -> SamplingPlan:
        """As a student's, with what an ablation leaves of the cache."""
        plan = super().sampling(network)
        return replace(plan, settings=replace(plan.settings, cache=self._asd.cache))

    def _gap(self, network: nn.Module, device: torch.device) -> float:
        gaps, generator = [], torch.Generator().manual_seed(0)
        for clip in self.data.held_out.spread(_COMPARED_CLIPS):
            batch = batch_of([whole_sample(clip)], torch.ones(1, SEGMENTS), clean_context=False).to(device)
            noise = torch.randn(batch.clean_BTHWC.shape, generator=generator).to(device)
            for level in _COMPARED_LEVELS:
                at_level = batch.at_level(level)
                taught = self._taught(at_level.noisy(noise), at_level)
                gaps.append(float(squares(self.predict(network, at_level, noise), taught).mean()))
        return fmean(gaps)

    @torch.no_grad()
    def _taught(self, noisy_BTHWC: Tensor, batch: MotionBatch) -> Tensor:
        """What the teacher says of the same noisy latents, knowing the same."""
        assert self._teacher is not None
        device = noisy_BTHWC.device
        with frozen_autocast(device):
            velocities: Tensor = self._teacher.to(device)(noisy_BTHWC, batch.levels_BS, batch.conditions)
        return velocities.float()
