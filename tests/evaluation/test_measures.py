"""Each measure beside a plain reckoning of the same thing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from visavis.contract import CHUNK_FRAMES
from visavis.evaluation.estimate import estimate, mean_over_clips
from visavis.evaluation.explained_variance import ExplainedVariance
from visavis.evaluation.face_points import LOWER_LIP, UPPER_LIP, correlation, landmark_error, lip_gaps, signal_moments
from visavis.evaluation.linear_probe import probe
from visavis.evaluation.picture_quality import luma, psnr, ssim
from visavis.evaluation.seams import frame_changes, seam
from visavis.training.data.footage.detectors import Boxes, Faces


def _pictures(frames: int, size: int = 24, seed: int = 0) -> torch.Tensor:
    return torch.rand(frames, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_an_interval_holds_the_value_and_shrinks_with_more_clips() -> None:
    values = np.random.default_rng(0).normal(10, 1, size=400).tolist()

    few, many = mean_over_clips(values[:20]), mean_over_clips(values)

    assert few.low < few.value < few.high
    assert many.value == pytest.approx(np.mean(values))
    # The interval of a mean is 1.96 deviations to each side.
    assert many.high - many.low == pytest.approx(2 * 1.96 * np.std(values) / 20, rel=0.15)
    assert many == mean_over_clips(values)
    assert mean_over_clips([3.0]).low == 3.0
    with pytest.raises(ValueError, match="no clip"):
        mean_over_clips([])
    assert estimate([(1.0, 2.0), (3.0, 4.0)], lambda rows: rows[..., 0].sum(-1) / rows[..., 1].sum(-1)).value == 4 / 6


def test_psnr_is_that_of_the_textbook() -> None:
    original, other = _pictures(3), _pictures(3, seed=1)
    for frame, decibels in enumerate(psnr(original, other).tolist()):
        error = np.mean((original[frame].numpy() - other[frame].numpy()) ** 2)
        assert decibels == pytest.approx(10 * math.log10(1 / error), abs=1e-3)
    assert psnr(original, original).tolist() == [math.inf] * 3


def test_psnr_of_a_region_sees_nothing_else() -> None:
    original = _pictures(2)
    other = original.clone()
    other[:, :, :12] += 0.1
    share = torch.zeros(2, 24, 24)
    share[0, :12], share[1, 12:] = 1.0, 1.0

    upper, lower = psnr(original, other, share).tolist()

    assert upper == pytest.approx(20.0, abs=1e-3)
    assert lower == math.inf
    share[0, 12:] = 1 / 3
    assert psnr(original, other, share)[0].item() == pytest.approx(-10 * math.log10(0.01 * 0.75), abs=1e-3)
    assert psnr(original, other, 0 * share).isnan().all()


def test_ssim_is_that_of_the_definition() -> None:
    original, other = _pictures(1, size=16), _pictures(1, size=16, seed=1)
    x, y = (luma(pictures)[0].double().numpy() for pictures in (original, other))
    places = np.arange(11) - 5
    bell = np.exp(-(places**2) / (2 * 1.5**2))
    window = np.outer(bell, bell) / bell.sum() ** 2
    values = []
    for row in range(6):
        for column in range(6):
            a, b = (signal[row : row + 11, column : column + 11] for signal in (x, y))
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            variance_a, variance_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            covariance = (window * (a - mean_a) * (b - mean_b)).sum()
            values.append(
                (2 * mean_a * mean_b + 1e-4)
                * (2 * covariance + 9e-4)
                / ((mean_a**2 + mean_b**2 + 1e-4) * (variance_a + variance_b + 9e-4))
            )
    assert ssim(original, other).item() == pytest.approx(np.mean(values), abs=1e-4)
    assert ssim(original, original).item() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="11 pixels"):
        ssim(_pictures(1, size=10), _pictures(1, size=10))


def test_a_jump_at_chunk_borders_is_a_seam_and_one_elsewhere_is_not() -> None:
    frames = 3 * CHUNK_FRAMES + 1
    moving = torch.linspace(0, 0.5, frames)[:, None, None, None].expand(-1, 3, 8, 8).clone()
    jumping, restless = moving.clone(), moving.clone()
    # The first frame of chunks 2 and 3.
    jumping[CHUNK_FRAMES + 1 :] += 0.1
    jumping[2 * CHUNK_FRAMES + 1 :] += 0.1
    restless[7:] += 0.2
    original = [frame_changes(moving)]

    assert seam(original, original).value == 1
    assert seam(original, [frame_changes(jumping)]).value > 5
    assert seam(original, [frame_changes(restless)]).value < 1
    assert frame_changes(moving).at_borders == pytest.approx(0.5 / (frames - 1), rel=1e-4)
    with pytest.raises(ValueError, match="no chunk border"):
        frame_changes(moving[: CHUNK_FRAMES + 1])


def _faces(landmarks_FN2: np.ndarray) -> Faces:
    none = Boxes(np.zeros(0, np.int32), np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    return Faces(landmarks_FN2.astype(np.float32), np.isfinite(landmarks_FN2).all(axis=(1, 2)), none)


def test_landmarks_are_compared_where_both_have_a_face() -> None:
    points = np.random.default_rng(0).uniform(0, 256, size=(5, 478, 2))
    shifted = points + np.array([3.0, 4.0])
    shifted[2] = np.nan

    assert landmark_error(_faces(points), _faces(shifted)) == pytest.approx(5.0, abs=1e-3)
    assert landmark_error(_faces(points), _faces(points)) == 0
    assert math.isnan(landmark_error(_faces(points), _faces(points * np.nan)))


def test_lip_gaps_correlate_as_numpy_says() -> None:
    random = np.random.default_rng(0)
    points, other = (random.uniform(0, 256, size=(20, 478, 2)) for _ in range(2))
    other[:, UPPER_LIP], other[:, LOWER_LIP] = points[:, UPPER_LIP], points[:, LOWER_LIP] + (0.0, 5.0)
    gaps = [np.linalg.norm(mesh[:, UPPER_LIP] - mesh[:, LOWER_LIP], axis=1) for mesh in (points, other)]

    found = correlation([lip_gaps(_faces(points), _faces(other))])

    assert found.value == pytest.approx(np.corrcoef(*gaps)[0, 1], abs=1e-5)


def test_correlation_is_within_clips_and_a_still_clip_has_no_say() -> None:
    random = np.random.default_rng(1)
    signal, noise = random.normal(size=50), random.normal(size=50)
    moving, still = signal_moments(signal, signal + 100), signal_moments(1e-6 * noise, -1e-6 * noise)

    assert correlation([moving, still]).value == pytest.approx(1.0, abs=1e-6)
    assert signal_moments(np.zeros(0), np.zeros(0)).variance == 0
    assert correlation([signal_moments(signal, 0 * signal)]).value == 0


def test_explained_variance_counted_in_parts_is_that_of_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    original = torch.randn(60, 6, generator=generator) * torch.arange(1, 7) + 100
    rebuilt = original + 0.3 * torch.randn(60, 6, generator=generator)
    counted = ExplainedVariance(6)
    for part in range(3):
        rows = slice(20 * part, 20 * part + 20)
        counted.add(original[rows].view(4, 5, 6), rebuilt[rows].view(4, 5, 6))

    error = (original - rebuilt).square().sum(0)
    deviation = (original - original.mean(0)).square().sum(0)
    assert counted.overall() == pytest.approx(float(1 - error.sum() / deviation.sum()), abs=1e-4)
    assert counted.channel_mean() == pytest.approx(float((1 - error / deviation).mean()), abs=1e-4)
    first, second = counted.of_groups(2)
    assert first == pytest.approx(float(1 - error[:3].sum() / deviation[:3].sum()), abs=1e-4)
    assert second > first
    with pytest.raises(ValueError, match="cannot compare"):
        counted.add(original, rebuilt[:, :5])
    with pytest.raises(ValueError, match="nothing"):
        ExplainedVariance(6).overall()


def test_a_probe_finds_a_line_and_is_ridge_regression() -> None:
    random = np.random.default_rng(0)
    known, judged = random.normal(size=(100, 8)), random.normal(size=(40, 8))
    line = random.normal(size=(8, 2))
    wanted, judged_wanted = known @ line + 3, judged @ line + 3 + random.normal(size=(40, 2))
    clips = torch.arange(100) // 10

    tensors = [torch.from_numpy(array) for array in (known, wanted, judged, judged_wanted)]
    found = probe(tensors[0], tensors[1], clips, tensors[2], tensors[3])

    # Plain ridge regression, in the space of features.
    centred = (known - known.mean(0)) / known.std(ddof=1)
    power = np.trace(centred @ centred.T) / 100
    lifted = centred.T @ centred + found.ridge * power * np.eye(8)
    weights = np.linalg.solve(lifted, centred.T @ (wanted - wanted.mean(0)))
    predicted = (judged - known.mean(0)) / known.std(ddof=1) @ weights + wanted.mean(0)
    r2 = 1 - ((judged_wanted - predicted) ** 2).sum() / ((judged_wanted - judged_wanted.mean()) ** 2).sum()
    assert found.r2 == pytest.approx(r2, abs=1e-6)
    assert 0.7 < found.r2 < 1


def test_a_probe_finds_nothing_in_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    known, judged = torch.randn(100, 500, generator=generator), torch.randn(40, 500, generator=generator)
    jaw, judged_jaw = torch.rand(100, 1, generator=generator), torch.rand(40, 1, generator=generator)

    assert abs(probe(known, jaw, torch.arange(100), judged, judged_jaw).r2) < 0.2
    with pytest.raises(ValueError, match="5 clips"):
        probe(known, jaw, torch.ones(100), judged, judged_jaw)
