"""The terms of ASD against plain references, and against what the paper says of them (C.1 to C.3)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from visavis.training.motion.contrastive_loss import contrastive_loss
from visavis.training.motion.smoothness_loss import smoothness_errors, smoothness_loss

CLIPS, FRAMES, SHAPE = 2, 6, (2, 3, 5)


def clips(seed: int, *, frames: int = FRAMES) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(CLIPS, frames, *SHAPE, generator=generator, dtype=torch.float64)


def jitter(frames: int = FRAMES) -> Tensor:
    """(-1)^i u for i = 1 to f: `u` has norm 1 and is the last element of a latent frame."""
    unit = torch.zeros(*SHAPE, dtype=torch.float64)
    unit[-1, -1, -1] = 1.0
    signs = torch.tensor([(-1.0) ** i for i in range(1, 1 + frames)], dtype=torch.float64)
    return signs.view(1, -1, 1, 1, 1) * unit


def without_jitter(velocities: Tensor) -> Tensor:
    """Orthogonal to `u` in every frame."""
    return velocities * (jitter(1).abs() == 0)


def by_loops(student: Tensor, teacher: Tensor, temperature: float) -> float:
    """Eq. 21 as it stands."""
    total = 0.0
    for clip in range(len(student)):
        for i in range(FRAMES):
            likeness = [
                float(torch.cosine_similarity(student[clip, i].flatten(), frame.flatten(), dim=0))
                for frame in teacher[clip]
            ]
            total -= math.log(
                math.exp(likeness[i] / temperature) / sum(math.exp(one / temperature) for one in likeness)
            )
    return total / (len(student) * FRAMES)


@pytest.mark.parametrize("temperature", [0.1, 0.7])
def test_the_contrastive_loss_is_equation_21(temperature: float) -> None:
    student, teacher = clips(1) + clips(2), clips(2)
    assert float(contrastive_loss(student, teacher, temperature)) == pytest.approx(
        by_loops(student, teacher, temperature), rel=1e-5
    )


def test_the_contrastive_loss_lies_between_its_bounds() -> None:
    """Eq. 31 bounds the information by log f minus the loss, which so lies in [0, log f] wherever it says anything."""
    alike = clips(1)[:, :1].expand(-1, FRAMES, *SHAPE)
    assert float(contrastive_loss(clips(2), alike)) == pytest.approx(math.log(FRAMES), rel=1e-5)
    assert float(contrastive_loss(clips(1), clips(1), temperature=0.01)) == pytest.approx(0.0, abs=1e-5)
    assert float(contrastive_loss(clips(1), clips(1).flip(1))) > math.log(FRAMES)


def test_the_contrastive_loss_takes_negatives_from_the_same_clip_alone() -> None:
    student, teacher = clips(1) + clips(2), clips(2)
    apart = [float(contrastive_loss(student[[clip]], teacher[[clip]])) for clip in range(CLIPS)]
    assert float(contrastive_loss(student, teacher)) == pytest.approx(sum(apart) / CLIPS, rel=1e-5)


def test_the_contrastive_loss_is_flat_to_jitter_orthogonal_to_every_teacher_frame() -> None:
    """Theorem C.5, 1: no first derivative, and growth with the square of epsilon."""
    teacher = without_jitter(clips(3)).float()

    def loss(epsilon: Tensor) -> Tensor:
        return contrastive_loss(teacher + epsilon * jitter().float(), teacher)

    at_zero = torch.zeros((), requires_grad=True)
    (slope,) = torch.autograd.grad(loss(at_zero), at_zero)
    assert float(slope) == 0.0
    norm = float(teacher.flatten(2).norm(dim=2).mean())
    grown = [float(loss(torch.tensor(part * norm)) - loss(torch.tensor(0.0))) for part in (0.05, 0.1)]
    assert grown[0] > 0
    assert grown[1] / grown[0] == pytest.approx(4.0, rel=0.05)


def test_the_contrastive_loss_is_not_flat_to_jitter_along_another_frame() -> None:
    """Why it must be orthogonal to every teacher frame and not only to the one that it disturbs."""
    teacher = clips(3).float()
    teacher[:, 0] = jitter(1)[:, 0]
    teacher[:, 1:] *= jitter(1).abs() == 0
    at_zero = torch.zeros((), requires_grad=True)
    disturbed = jitter().float() * (torch.arange(FRAMES).view(1, -1, 1, 1, 1) > 0)
    (slope,) = torch.autograd.grad(contrastive_loss(teacher + at_zero * disturbed, teacher), at_zero)
    assert abs(float(slope)) > 1e-6


def test_the_smoothness_loss_is_equation_23() -> None:
    student, teacher = clips(1), clips(2)
    shared = clips(3)[:, :1]
    second = [torch.cat([shared, moving], dim=1) for moving in (student, teacher)]
    total = 0.0
    for i in range(1, FRAMES):
        of_student, of_teacher = (v[:, i + 1] - 2 * v[:, i] + v[:, i - 1] for v in second)
        total += float(((of_student - of_teacher) ** 2).sum())
    assert float(smoothness_loss(student, teacher)) == pytest.approx(
        total / (FRAMES - 1) / student[:, 0].numel(), rel=1e-5
    )


def test_alternating_jitter_costs_sixteen_epsilon_squared() -> None:
    """Theorem C.5, 2. The latent frame beside frame 0, which has no error, is the only one that costs less: 9."""
    teacher, epsilon = clips(1), 0.3
    costs_Bi = smoothness_errors(teacher + epsilon * jitter(), teacher).flatten(2).sum(2)
    expected = torch.tensor([9.0] + [16.0] * (FRAMES - 2)) * epsilon**2
    torch.testing.assert_close(costs_Bi, expected.expand(CLIPS, -1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("omega", [0.1, 1.0, 2.0, math.pi])
def test_the_gain_at_a_frequency_is_sixteen_times_sine_to_the_fourth(omega: float) -> None:
    """Theorem C.4, for an error that has both phases of a wave: the same energy in every frame."""
    frames = 9
    unit, phase = jitter(1)[0, 0].abs(), omega * torch.arange(1, 1 + frames, dtype=torch.float64)
    both = torch.stack([phase.cos(), phase.sin()]).view(CLIPS, frames, 1, 1, 1) * unit
    teacher = clips(1, frames=frames)
    energy_i = smoothness_errors(teacher + both, teacher).flatten(2).sum(2).sum(0)[1:]
    torch.testing.assert_close(energy_i, torch.full_like(energy_i, 16 * math.sin(omega / 2) ** 4), rtol=1e-4, atol=1e-6)


def test_a_constant_pull_away_from_frame_0_costs_and_a_steady_drift_does_not() -> None:
    """Frame 0 has no error: an offset begins with a jerk behind it, a drift that begins at it is straight."""
    teacher = clips(1)
    steps = torch.arange(1, 1 + FRAMES, dtype=torch.float64).view(1, -1, 1, 1, 1)
    assert float(smoothness_loss(teacher + steps, teacher)) == pytest.approx(0.0, abs=1e-9)
    offset_i = smoothness_errors(teacher + 1.0, teacher).mean(dim=(0, 2, 3, 4))
    torch.testing.assert_close(offset_i, torch.tensor([1.0] + [0.0] * (FRAMES - 2)), atol=1e-9, rtol=0)


def test_the_smoothness_of_velocities_is_that_of_clean_latents_under_shared_noise() -> None:
    """Lemma C.3."""
    noise, student, teacher = clips(1), clips(2), clips(3)
    torch.testing.assert_close(
        smoothness_loss(noise - student, noise - teacher), smoothness_loss(student, teacher), rtol=1e-5, atol=0
    )


def test_one_moving_latent_frame_has_no_second_difference() -> None:
    with pytest.raises(ValueError, match="two moving latent frames"):
        smoothness_loss(clips(1)[:, :1], clips(2)[:, :1])
