"""The schedule and the Euler step are those of diffusers' scheduler."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

from visavis.models.flow_matching import add_noise, euler_step, pinned_scheduler, schedule


@pytest.mark.parametrize("shift", [1.0, 2.5857, 5.9003])
def test_steps_equal_those_of_diffusers(shift: float) -> None:
    scheduler: Any = pinned_scheduler(shift)
    times = schedule(scheduler, 8)
    latents, velocity = torch.randn(2, 5), torch.randn(2, 5)
    scheduler.set_timesteps(sigmas=[1 - step / 8 for step in range(8)])
    torch.testing.assert_close(torch.tensor(times.timesteps[:-1]), scheduler.timesteps, rtol=1e-6, atol=0)
    for step, timestep in enumerate(scheduler.timesteps):
        expected = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        torch.testing.assert_close(euler_step(latents, velocity, *times.times[step : step + 2]), expected)


def test_times_fall_from_one_to_zero() -> None:
    times = schedule(pinned_scheduler(2.5857), 8)
    assert times.steps == 8
    assert times.times[0] == 1.0
    assert times.times[-1] == 0.0
    assert list(times.times) == sorted(times.times, reverse=True)
    assert times.timesteps[0] == 1000.0


def test_the_shift_is_that_of_dynamic_shifting_at_its_mu() -> None:
    dynamic = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    dynamic.set_timesteps(sigmas=[1 - step / 8 for step in range(8)], mu=0.95)
    pinned = schedule(pinned_scheduler(2.5857), 8)
    torch.testing.assert_close(torch.tensor(pinned.times), dynamic.sigmas, rtol=1e-4, atol=0)


def test_following_the_true_velocity_arrives_at_the_clean_latent() -> None:
    clean, noise = torch.randn(4, 6), torch.randn(4, 6)
    times = schedule(pinned_scheduler(2.5857), 8).times
    latents = noise
    for time, next_time in itertools.pairwise(times):
        torch.testing.assert_close(latents, add_noise(clean, noise, torch.tensor(time)), atol=1e-5, rtol=1e-5)
        latents = euler_step(latents, noise - clean, time, next_time)
    torch.testing.assert_close(latents, clean, atol=1e-5, rtol=1e-5)


def test_impossible_schedules_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 step"):
        schedule(pinned_scheduler(1.0), 0)
    with pytest.raises(ValueError, match="pinned"):
        schedule(FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), 8)
