"""The prior against the textbook's conditional mean of Gaussians, and against samples."""

import numpy as np
import pytest
import torch

from visavis.models.latent_prior import LatentPrior

CHANNELS = 6


def fitted() -> tuple[LatentPrior, torch.Tensor, torch.Tensor]:
    """A prior whose directions differ widely in variance, its mean and covariance."""
    torch.manual_seed(0)
    mean, turn = torch.randn(CHANNELS), torch.linalg.qr(torch.randn(CHANNELS, CHANNELS))[0]
    covariance = turn @ torch.diag(torch.tensor([50.0, 9.0, 1.0, 0.1, 0.01, 0.001])) @ turn.T
    prior = LatentPrior(CHANNELS)
    prior.fit(mean, covariance)
    return prior, mean, covariance


def velocity_of_cells(
    prior: LatentPrior, latents_NC: torch.Tensor, level: float, residual_NC: torch.Tensor
) -> torch.Tensor:
    shape = (1, 1, -1, 1, CHANNELS)
    output = torch.cat([residual_NC, torch.zeros_like(residual_NC)], dim=1).view(*shape[:-1], 2 * CHANNELS)
    return prior.velocity(latents_NC.view(shape), torch.full((1, 1), level), output).view(-1, CHANNELS)


def test_it_is_the_conditional_mean_of_the_velocity() -> None:
    prior, mean, covariance = fitted()
    levels = torch.tensor([[0.05, 0.3], [0.7, 1.0]])
    latents = torch.randn(2, 2, 3, 1, CHANNELS)
    found = prior.velocity(latents, levels, torch.zeros(2, 2, 3, 1, 2 * CHANNELS))
    for row, frame in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        level = levels[row, frame].double()
        seen = latents[row, frame].double() - (1 - level) * mean.double()
        of_seen = (1 - level) ** 2 * covariance.double() + level**2 * torch.eye(CHANNELS).double()
        # Of noise - clean with what is seen.
        crossed = level * torch.eye(CHANNELS).double() - (1 - level) * covariance.double()
        expected = seen @ torch.linalg.solve(of_seen, crossed) - mean.double()
        torch.testing.assert_close(found[row, frame].double(), expected, atol=1e-3, rtol=1e-3)


def test_no_other_linear_guess_is_better() -> None:
    prior, mean, covariance = fitted()
    clean = mean + torch.randn(20_000, CHANNELS) @ torch.linalg.cholesky(covariance).T
    noise, level = torch.randn_like(clean), 0.3
    noisy, wanted = (1 - level) * clean + level * noise, noise - clean
    found = velocity_of_cells(prior, noisy, level, torch.zeros_like(noisy))
    inputs = torch.cat([noisy, torch.ones(len(noisy), 1)], dim=1)
    best = inputs @ torch.linalg.lstsq(inputs, wanted).solution
    assert float((found - wanted).square().mean()) < 1.01 * float((best - wanted).square().mean())


@pytest.mark.parametrize("level", [0.1, 0.5, 1.0])
def test_what_it_leaves_open_has_a_variance_of_one_in_all_directions(level: float) -> None:
    prior, mean, covariance = fitted()
    clean = mean + torch.randn(20_000, CHANNELS) @ torch.linalg.cholesky(covariance).T
    noise = torch.randn_like(clean)
    noisy = (1 - level) * clean + level * noise
    without = velocity_of_cells(prior, noisy, level, torch.zeros_like(noisy))
    # The residual acts linearly: its effect, direction by direction.
    effect_CC = velocity_of_cells(prior, noisy[:CHANNELS], level, torch.eye(CHANNELS)) - without[:CHANNELS]
    residual = torch.linalg.solve(effect_CC.T.double(), (noise - clean - without).T.double()).T
    torch.testing.assert_close(residual.T.cov(), torch.eye(CHANNELS).double(), atol=0.05, rtol=0.0)


def test_a_cell_that_varies_otherwise_is_read_by_its_own_variances() -> None:
    prior, mean, covariance = fitted()
    other = LatentPrior(CHANNELS)
    other.fit(mean, 0.25 * covariance)
    latents, levels = torch.randn(1, 1, 4, 1, CHANNELS), torch.tensor([[0.4]])
    # What the bound of the log-variance bends to a quarter.
    factor = 6.0 * np.arctanh(np.log(0.25) / 6.0)
    ones, zeros = torch.ones(1, 1, 4, 1, CHANNELS), torch.zeros(1, 1, 4, 1, CHANNELS)
    output = torch.cat([ones, torch.full_like(ones, factor)], dim=-1)
    expected = other.velocity(latents, levels, torch.cat([ones, zeros], dim=-1))
    torch.testing.assert_close(prior.velocity(latents, levels, output), expected, atol=1e-4, rtol=1e-4)
    wild = torch.full_like(output, 1e4)
    assert bool(torch.isfinite(prior.velocity(latents, levels, wild)).all())


def test_it_stays_float32_beside_rounded_weights() -> None:
    prior, _, covariance = fitted()
    moved = torch.nn.Sequential(torch.nn.Linear(2, 2), prior).to(torch.bfloat16)
    assert moved[0].weight.dtype == torch.bfloat16
    assert {buffer.dtype for buffer in prior.buffers()} == {torch.float32}
    rebuilt = prior.directions @ prior.variances.diag() @ prior.directions.T
    torch.testing.assert_close(rebuilt, covariance, atol=1e-4, rtol=1e-4)


def test_before_it_is_fitted_latents_are_standard_normal() -> None:
    latents = torch.randn(1, 1, 2, 2, CHANNELS)
    found = LatentPrior(CHANNELS).velocity(latents, torch.full((1, 1), 0.5), torch.zeros(1, 1, 2, 2, 2 * CHANNELS))
    torch.testing.assert_close(found, torch.zeros_like(found))


@pytest.mark.parametrize(
    "covariance", [torch.eye(CHANNELS + 1), -torch.eye(CHANNELS), torch.full((CHANNELS, CHANNELS), torch.nan)]
)
def test_what_is_no_covariance_is_refused(covariance: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"covariance"):
        LatentPrior(CHANNELS).fit(torch.zeros(CHANNELS), covariance)
