"""Flow matching (paper Eq. 1 to 3): the schedule of noise levels and one Euler step.

A latent at time t is `(1 - t) * clean + t * noise` (Eq. 2), the velocity is `noise - clean` (Eq. 17).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler


@dataclass(frozen=True, slots=True)
class Schedule:
    """Times from 1 to 0: one more than there are steps. Step s goes from `times[s]` to `times[s + 1]`."""

    times: tuple[float, ...]
    # What the network is told for time 1; its embedding was made for 1,000 discrete steps.
    timestep_scale: int

    @property
    def steps(self) -> int:
        """Number of denoising steps."""
        return len(self.times) - 1

    @property
    def timesteps(self) -> tuple[float, ...]:
        """The times as the network is told them, the final 0 included."""
        return tuple(time * self.timestep_scale for time in self.times)


def pinned_scheduler(shift: float) -> FlowMatchEulerDiscreteScheduler:
    """diffusers' scheduler with a fixed shift (`exp(mu)` in its terms).

    With dynamic shifting, diffusers derives mu from the number of tokens: a chunk would be denoised along other times
    than the clips the model was trained on.
    """
    scheduler: FlowMatchEulerDiscreteScheduler = FlowMatchEulerDiscreteScheduler(
        shift=shift, use_dynamic_shifting=False
    )
    return scheduler


def schedule(scheduler: FlowMatchEulerDiscreteScheduler, steps: int) -> Schedule:
    """The times of `steps` evenly spaced steps after the scheduler's shift. Raises `ValueError` below 1 step."""
    if steps < 1:
        raise ValueError(f"sampling needs at least 1 step, got {steps}")
    if scheduler.config["use_dynamic_shifting"]:
        raise ValueError("the scheduler must have its shift pinned (use_dynamic_shifting=False)")
    scheduler.set_timesteps(sigmas=[1 - step / steps for step in range(steps)])
    return Schedule(tuple(float(sigma) for sigma in scheduler.sigmas), int(scheduler.config["num_train_timesteps"]))


def euler_step(latents: torch.Tensor, velocity: torch.Tensor, time: float, next_time: float) -> torch.Tensor:
    """Follows the flow (Eq. 1) from `time` to `next_time`."""
    return latents + velocity * (next_time - time)


def add_noise(clean: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """The latent at the given times (Eq. 2); `times` is broadcast against `clean`."""
    return torch.lerp(clean, noise, times.to(clean.dtype))
