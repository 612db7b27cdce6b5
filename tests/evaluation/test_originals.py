"""The published measures: their arithmetic beside plain reckonings, their networks beside the original programs.

The figures of `ORIGINALS` were computed by pytorch-fid 0.3.0, syncnet_python 6efbb1c and Deep3DFaceRecon_pytorch
9167c71 on the weights of `steady`, which depend on names and shapes alone. Ours gave the same: Inception and the
reconstruction bit for bit, the others to the last digits of a float.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import scipy.signal
import torch

from visavis.evaluation.errors import EvaluationError
from visavis.evaluation.frechet import fit_gaussian, frechet_distance
from visavis.evaluation.originals.clip_features import FrechetCollector, i3d_features, inception_features, load_i3d
from visavis.evaluation.originals.face_tracks import FaceTrack, cut_out, link_faces, medians
from visavis.evaluation.originals.inception import FidInception, load_inception
from visavis.evaluation.originals.measures import INCEPTION_FILE, OriginalMeasures
from visavis.evaluation.originals.mfcc import mfcc
from visavis.evaluation.originals.reconstruction import FaceReconstruction, align
from visavis.evaluation.originals.s3fd import S3FD, without_overlaps
from visavis.evaluation.originals.syncnet import SyncNetV2, track_scores
from visavis.evaluation.sync_scores import sync_scores

# Inception: mean of a picture's features and the third of them; SyncNet: confidence and distance of a track;
# S3FD: sums of boxes and scores; reconstruction: deviation of the coefficients and the 100th.
ORIGINALS = {
    "inception": (1.2144979238510132, 0.3866524398326874),
    "syncnet": (478.080078125, 13880.1865234375),
    "s3fd": (1032.92135284096, 258.21037522488405),
    "reconstruction": (8420.8095703125, -3786.64453125),
}


def steady(network: torch.nn.Module) -> torch.nn.Module:
    """Weights that any program gives to any network of the same names and shapes."""
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            wave = 2 * (43_758.5453 * torch.sin(12.9898 * torch.arange(value.numel()).double() + len(name))).frac()
            wave = torch.where(wave < 0, wave + 2, wave) - 1  # noise, -1 to 1
            if name.endswith("running_var"):
                wave = 1 + 0.3 * wave
            elif value.ndim == 1:
                wave = 1 + 0.2 * wave if name.endswith("weight") else 0.1 * wave
            else:
                wave = wave * math.sqrt(6 / (value.numel() / value.shape[0]))
            value.copy_(wave.view(value.shape))
    return network.eval()


def _pictures(frames: int, size: int = 128) -> np.ndarray:
    """Coloured squares that move."""
    y, x = np.mgrid[0:size, 0:size] // 16
    picture = np.stack([(37 * x + 91 * y) % 256, (59 * x + 17 * y) % 256, (83 * x + 43 * y) % 256], axis=2)
    return np.stack([np.roll(picture, 3 * frame, axis=1) for frame in range(frames)]).astype(np.uint8)


def _pcm(frames: int) -> np.ndarray:
    time = np.arange(640 * frames)
    return (3000 * np.sin(time * (0.05 + 2e-6 * time)) * (np.sin(time / 900) > 0)).astype(np.int16)


@torch.no_grad()
def test_inception_is_that_of_pytorch_fid() -> None:
    network = steady(FidInception())
    features = torch.from_numpy(inception_features(network)(_pictures(1)))
    assert features.shape == (1, 2048)
    assert (float(features.mean()), float(features[0, 3])) == pytest.approx(ORIGINALS["inception"], rel=1e-4)


def test_syncnet_scores_a_track_as_syncnet_python_does() -> None:
    network = steady(SyncNetV2())
    assert isinstance(network, SyncNetV2)
    scores = track_scores(network, _pictures(9, size=224), _pcm(9))
    assert (scores.confidence, scores.distance) == pytest.approx(ORIGINALS["syncnet"], rel=1e-3)


@torch.no_grad()
def test_s3fd_sees_the_same_boxes() -> None:
    pixels = torch.from_numpy(_pictures(1)[0].transpose(2, 0, 1).copy()).float() - 120
    boxes, scores = steady(S3FD())(pixels[None, :, :96, :64])
    assert (float(boxes.double().sum()), float(scores.double().sum())) == pytest.approx(ORIGINALS["s3fd"], rel=1e-4)


@torch.no_grad()
def test_reconstruction_gives_the_same_coefficients() -> None:
    network = steady(FaceReconstruction())
    assert isinstance(network, FaceReconstruction)
    pictures = torch.from_numpy(_pictures(1).transpose(0, 3, 1, 2).copy()).float() / 255
    found = network(pictures)
    assert (float(found.std()), float(found[0, 100])) == pytest.approx(ORIGINALS["reconstruction"], rel=1e-4)
    assert torch.equal(network.expressions(pictures), found[:, 80:144])


def test_the_frechet_distance_is_that_of_the_textbook() -> None:
    random = np.random.default_rng(0)
    one, other = random.normal(size=(200, 12)), 1.4 * random.normal(size=(150, 12)) + 0.3
    covariances = [np.cov(rows, rowvar=False) for rows in (one, other)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    apart = np.square(one.mean(0) - other.mean(0)).sum()
    expected = apart + np.trace(covariances[0] + covariances[1] - 2 * root)

    assert frechet_distance(fit_gaussian(one), fit_gaussian(other)) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(fit_gaussian(one), fit_gaussian(one)) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(fit_gaussian(one), fit_gaussian(one + 2)) == pytest.approx(4 * 12, rel=1e-9)
    with pytest.raises(ValueError, match="two samples"):
        fit_gaussian(one[:1])
    with pytest.raises(ValueError, match="channels"):
        frechet_distance(fit_gaussian(one), fit_gaussian(other[:, :5]))


def test_the_frechet_distance_is_exact_with_fewer_samples_than_channels() -> None:
    random = np.random.default_rng(1)
    one, other = random.normal(size=(6, 40)), random.normal(size=(5, 40))
    centred = [(rows - rows.mean(0)) / math.sqrt(len(rows) - 1) for rows in (one, other)]
    # Tr (C1 C2)^½ is the sum of the singular values of the product of the centred samples.
    shared = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    expected = (
        np.square(one.mean(0) - other.mean(0)).sum() + sum(np.square(rows).sum() for rows in centred) - 2 * shared
    )

    assert frechet_distance(fit_gaussian(one), fit_gaussian(other)) == pytest.approx(expected, rel=1e-6)


def test_mfcc_are_those_of_python_speech_features() -> None:
    pcm = _pcm(3)
    pcm[:800] = 0
    signal = np.append(pcm[0], pcm[1:] - 0.97 * pcm[:-1])
    windows = [signal[start : start + 400] for start in range(0, len(signal) - 400 + 160, 160)]
    frequencies = [700 * (10 ** (mel / 2595) - 1) for mel in np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 28)]
    corners = [math.floor(513 * frequency / 16000) for frequency in frequencies]
    for row, window in zip(mfcc(pcm), windows, strict=True):
        power = np.abs(np.fft.rfft(window, 512)) ** 2 / 512
        bands = [
            sum(power[k] * (k - low) / (middle - low) for k in range(low, middle))
            + sum(power[k] * (high - k) / (high - middle) for k in range(middle, high))
            for low, middle, high in zip(corners, corners[1:], corners[2:], strict=False)
        ]
        tiny = np.finfo(float).eps
        cepstra = scipy.fft.dct(np.log([band or tiny for band in bands]), norm="ortho")[:13]
        expected = cepstra * (1 + 11 * np.sin(np.pi * np.arange(13) / 22))
        expected[0] = np.log(power.sum() or tiny)
        np.testing.assert_allclose(row, expected, rtol=1e-8, atol=1e-8)
    with pytest.raises(ValueError, match="16-bit"):
        mfcc(pcm.astype(np.float32))


def test_sync_scores_find_by_how_much_speech_is_late() -> None:
    random = np.random.default_rng(0)
    said = torch.from_numpy(random.normal(size=(80, 8)))
    late, strange = torch.roll(said, 4, dims=0), torch.from_numpy(random.normal(size=(80, 8)))

    found = sync_scores(said, late)
    padded = np.pad(late.numpy(), ((15, 15), (0, 0)))
    by_shift = [np.linalg.norm(said.numpy() - padded[s : s + 80] + 1e-6, axis=1).mean() for s in range(31)]

    assert found.offset_frames == -4
    assert found.distance == pytest.approx(min(by_shift))
    assert found.confidence == pytest.approx(np.median(by_shift) - min(by_shift))
    assert sync_scores(said, strange).confidence < 0.2 * found.confidence


class _Spying(torch.nn.Module):
    """Takes what I3D takes, and describes a clip by its extent and its mean."""

    def forward(self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool) -> torch.Tensor:
        assert not rescale
        assert not resize
        assert return_features
        size = float(x.shape[3] * x.shape[4])
        return torch.stack([x.amin(), x.amax(), x.mean(), 0 * x.amin() + size])[None]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_i3d_is_given_what_stylegan_v_gives_it(tmp_path: Path) -> None:
    torch.jit.script(_Spying()).save(tmp_path / "i3d.pt")
    describe = i3d_features(load_i3d(tmp_path / "i3d.pt"))
    black_and_white = np.zeros((10, 60, 100, 3), dtype=np.uint8)
    black_and_white[:, :, 50:] = 255

    low, high, mean, size = describe(black_and_white)[0]

    assert (low, high, size) == pytest.approx((-1, 1, 224 * 224))
    assert mean == pytest.approx(0, abs=1e-3)
    with pytest.raises(ValueError, match="10 frames"):
        describe(black_and_white[:9])
    collector = FrechetCollector(describe)
    for level in (0, 100):
        collector.add(black_and_white, np.clip(black_and_white.astype(int) + level, 0, 255).astype(np.uint8))
    assert collector.distance() > 0.1
    with pytest.raises(EvaluationError, match="cannot read"):
        load_i3d(Path(__file__))


def test_faces_become_tracks() -> None:
    box = np.array([100.0, 60.0, 220.0, 200.0])
    faces = [(box + frame * 0.5)[None] for frame in range(130)]
    faces[40] = faces[41] = np.zeros((0, 4))
    faces[80] = np.array([box + 40, [0.0, 0.0, 30.0, 30.0]])

    (track,) = link_faces(faces)

    assert (track.first_frame, len(track.boxes_F4)) == (0, 130)
    np.testing.assert_allclose(track.boxes_F4[40:42], [box + 20, box + 20.5])
    assert link_faces(faces[:100]) == []
    assert link_faces([each * 0.5 for each in faces]) == []


def test_a_track_is_cut_out_with_its_margins() -> None:
    pictures = np.zeros((20, 256, 256, 3), dtype=np.uint8)
    pictures[:, 60:180, 70:190] = 255
    track = FaceTrack(0, np.tile([70.0, 60.0, 190.0, 180.0], (20, 1)))

    face = cut_out(pictures, track)[10]

    # Half a face up, four fifths more down, 0.4 to each side: 168 pixels become 224.
    assert face.shape == (224, 224, 3)
    assert face[2, 112, 0] == 255
    assert face[155, 112, 0] == 255
    assert face[165, 112, 0] == 0
    assert (face[100, 24:30].max(), face[100, 40].min()) == (0, 255)
    signal = np.random.default_rng(0).normal(size=40)
    np.testing.assert_array_equal(medians(signal), scipy.signal.medfilt(signal, 13))


def test_overlapping_boxes_give_way_to_better_ones() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [8, 0, 18, 10]], dtype=np.float64)
    assert without_overlaps(boxes, 0.3).tolist() == boxes[[0, 2, 3]].tolist()
    assert without_overlaps(boxes, 0.1).tolist() == boxes[[0, 2]].tolist()


def test_five_points_that_lie_right_are_left_where_they_are() -> None:
    """A face at the standard scale in the middle of a picture of the right size is only cut out."""
    standard = np.array([[-0.3, 0.3, 0.1], [0.3, 0.3, 0.1], [0, 0, 0.4], [-0.25, -0.3, 0.2], [0.25, -0.3, 0.2]])
    points = np.stack([112 + 102 * standard[:, 0], 223 - (112 + 102 * standard[:, 1])], axis=1)
    picture = _pictures(1, size=224)[0]
    aligned = align(picture, points, standard)
    np.testing.assert_allclose(aligned.numpy(), picture.transpose(2, 0, 1) / 255, atol=1e-6)


def test_measures_whose_files_are_missing_are_not_taken(tmp_path: Path) -> None:
    missing = {measure.name: measure for measure in OriginalMeasures(None, None).results()}
    assert list(missing) == ["FID", "FVD", "E-FID", "Sync-C", "Sync-D"]
    assert all(measure.value is None for measure in missing.values())
    assert INCEPTION_FILE in missing["FID"].why_not

    torch.save({"Conv2d_1a_3x3.conv.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / INCEPTION_FILE)
    with pytest.raises(EvaluationError, match="another network"):
        OriginalMeasures(tmp_path, None)
    (tmp_path / INCEPTION_FILE).write_bytes(b"nothing")
    with pytest.raises(EvaluationError, match="cannot read"):
        load_inception(tmp_path / INCEPTION_FILE)
