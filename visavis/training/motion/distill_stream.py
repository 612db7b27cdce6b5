"""What the fast preset is distilled on: streams as it makes them itself, and where the guided student would have gone.

Steps and guidance are distilled together. From wherever the fast network stands, the student takes its own steps with
both branches of guidance up to the end of the one fast step; the straight line there is the velocity that the fast
network learns (progressive distillation, Salimans and Ho 2022; of guided models, Meng et al. 2023). States and contexts
are the fast network's own, chunk after chunk, as a live session has them: it learns to correct what it made, instead of
drifting away from it (self forcing, Huang et al. 2025).

Legend: B streams, I chunks of a stream, P points of a chunk's way (one more than it has steps, the finished chunk
last), T latent frames of a chunk, H W latent rows and columns, C latent channels, W speech tokens, A speech channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from visavis.models.a2v_dit import A2VTransformer
from visavis.models.flow_matching import Schedule, pinned_scheduler, schedule
from visavis.models.generation import ChunkInProgress, SamplingSettings, begin_session, denoise_step, prepare_sampling
from visavis.models.guidance import joint_guidance
from visavis.models.sequence import forward_sequence
from visavis.training.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Stream:
    """What a chunk of a stream is made under: the speech, and what stands before it."""

    # [B, H, W, C]
    portrait_BHWC: Tensor
    # [B, I, T, W, A]
    speech_BITWA: Tensor
    # [B, I, T, H, W, C]: finished chunks, from which contexts are made
    made_BITHWC: Tensor


@dataclass(frozen=True, slots=True)
class Ways:
    """The times of the student's steps and of the fast network's, which leave out some of them."""

    student: Schedule
    fast: Schedule

    @classmethod
    def of(cls, student: SamplingSettings, fast: SamplingSettings) -> Ways:
        """Raises TrainingError where a fast step is no whole number of the student's, or more than guidance is left
        out."""
        comparable = replace(student, steps=fast.steps, guidance_scale=1.0)
        if fast != comparable or student.steps % fast.steps:
            raise TrainingError(
                f"{fast} cannot be distilled from {student}: the steps must divide, and all but guidance be the same"
            )
        scheduler = pinned_scheduler(student.shift)
        return cls(schedule(scheduler, student.steps), schedule(scheduler, fast.steps))

    @property
    def student_steps(self) -> int:
        """In one fast step."""
        return self.student.steps // self.fast.steps


@torch.no_grad()
def roll_out(
    transformer: A2VTransformer,
    settings: SamplingSettings,
    portrait_BHWC: Tensor,
    speech_BITWA: Tensor,
    seeds: Sequence[int],
) -> Tensor:
    """Streams from their beginning, by the code of a live session: the points of all chunks `[B, I, P, T, H, W, C]`."""
    plan = prepare_sampling(transformer, settings, *portrait_BHWC.shape[1:3])
    states = [
        begin_session(transformer, portrait[None], seed, settings, plan=plan)
        for portrait, seed in zip(portrait_BHWC, seeds, strict=True)
    ]
    chunks_BPTHWC = []
    # An adapter is added to the weights once, not in every pass.
    with parametrize.cached():
        for speech_BTWA in speech_BITWA.unbind(1):
            chunks = [ChunkInProgress(speech, state) for speech, state in zip(speech_BTWA, states, strict=True)]
            points = [torch.stack([chunk.latents_THWC for chunk in chunks])]
            while not chunks[0].done:
                were_ready = chunks[0].latents_ready
                denoise_step(chunks)
                if not were_ready:
                    points.append(torch.stack([chunk.latents_THWC for chunk in chunks]))
            states = [chunk.result()[1] for chunk in chunks]
            chunks_BPTHWC.append(torch.stack(points, dim=1))
    return torch.stack(chunks_BPTHWC, dim=1)


@torch.no_grad()
def guided_velocity(
    student: A2VTransformer, guidance_scale: float, ways: Ways, noisy_BITHWC: Tensor, steps_BI: Tensor, stream: Stream
) -> Tensor:
    """The velocity `[B, I, T, H, W, C]` that leads, in one fast step from its beginning, where the student goes."""
    guide = joint_guidance(guidance_scale)
    student_times = torch.tensor(ways.student.times, device=noisy_BITHWC.device)
    latents_BITHWC, first_BI = noisy_BITHWC, steps_BI * ways.student_steps
    for step in range(ways.student_steps):
        time_BI, next_BI = student_times[first_BI + step], student_times[first_BI + step + 1]
        conditional, unconditional = _both(student, latents_BITHWC, time_BI * ways.student.timestep_scale, stream)
        velocity_BITHWC = guide(conditional, unconditional)
        latents_BITHWC = latents_BITHWC + velocity_BITHWC * _spread(next_BI - time_BI)
    whole_BI = student_times[first_BI + ways.student_steps] - student_times[first_BI]
    return (latents_BITHWC - noisy_BITHWC) / _spread(whole_BI)


def _both(
    student: A2VTransformer, latents_BITHWC: Tensor, timesteps_BI: Tensor, stream: Stream
) -> tuple[Tensor, Tensor]:
    """With speech and identity, and with neither; both remember the same chunks, each in its own way."""
    clips = len(latents_BITHWC)
    heard_B = torch.arange(2 * clips, device=latents_BITHWC.device) < clips
    velocities = forward_sequence(
        student,
        torch.cat([stream.portrait_BHWC, torch.zeros_like(stream.portrait_BHWC)]),
        _twice(latents_BITHWC),
        _twice(timesteps_BI),
        _twice(stream.speech_BITWA),
        clean_latents_BITHWC=_twice(stream.made_BITHWC),
        has_speech_B=heard_B,
    )
    conditional, unconditional = velocities.float().chunk(2)
    return conditional, unconditional


def _twice(part: Tensor) -> Tensor:
    return torch.cat([part, part])


def _spread(of_chunk_BI: Tensor) -> Tensor:
    return of_chunk_BI[:, :, None, None, None, None]
