"""Clips whose pictures say in a corner how far lips and eyes are open, and a detector that reads it there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.training.made_up_talker import SIZE, made_up_talker
from visavis.training.data.clips import Clip
from visavis.training.data.footage.detectors import Boxes, Faces

# Pixels of the corner; lips in its red, eyes in its green.
_CORNER = 8
_MOST_GAP, _MOST_EYE = 0.2 * SIZE, 0.05 * SIZE
_FACE = (0.1, 0.95)
_EYES_AND_MOUTH = {
    "left": (263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398),
    "right": (33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173),
    "mouth": (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409),
}
_PLACES = {"left": (0.65, 0.4), "right": (0.35, 0.4), "mouth": (0.5, 0.7)}


class CodedFaces:
    """Fits `FindsFaces`; finds a face in every picture, always in the same place."""

    def __init__(self) -> None:
        self.asked = 0

    def faces(self, pictures_FHW3: np.ndarray) -> Faces:
        self.asked += 1
        codes = pictures_FHW3[:, :_CORNER, :_CORNER].mean(axis=(1, 2)) / 255
        meshes = [_mesh(red, green) for red, green, _ in codes]
        none = Boxes(np.zeros(0, np.int32), np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
        return Faces(np.array(meshes, dtype=np.float32), np.ones(len(meshes), dtype=bool), none)

    def hands(self, pictures_FHW3: np.ndarray) -> Boxes:
        raise NotImplementedError

    def text(self, pictures_FHW3: np.ndarray) -> Boxes:
        raise NotImplementedError


def coded_clip(index: int, gaps_F: np.ndarray, eyes_F: np.ndarray | None = None) -> Clip:
    """A made-up talker whose lips are as far apart as `gaps_F` (0 to 1) says, portrait included."""
    clip = made_up_talker(index)
    frames = np.tile(clip.frames_FHW3[:1], (len(gaps_F), 1, 1, 1))
    frames = np.roll(frames, index, axis=2)
    texture = np.random.default_rng(index).integers(0, 40, size=frames.shape[1:]).astype(np.uint8)
    frames = np.clip(frames.astype(int) + texture, 0, 255).astype(np.uint8)
    frames[:, :_CORNER, :_CORNER] = 0
    frames[:, :_CORNER, :_CORNER, 0] = np.rint(255 * gaps_F)[:, None, None]
    frames[:, :_CORNER, :_CORNER, 1] = np.rint(255 * (np.ones(len(gaps_F)) if eyes_F is None else eyes_F))[
        :, None, None
    ]
    return replace(
        clip,
        frames_FHW3=frames,
        samples_S=np.random.default_rng(index).normal(0, 0.1, 640 * (len(gaps_F) - 1)).astype(np.float32),
    )


def random_gaps(seed: int, frames: int = 97) -> np.ndarray:
    """Smooth, 0 to 1."""
    noise = np.random.default_rng(seed).normal(size=frames + 8)
    smooth = np.convolve(noise, np.hanning(9), mode="valid")
    gaps: np.ndarray = (smooth - smooth.min()) / np.ptp(smooth)
    return gaps


def _mesh(gap: float, eye: float) -> np.ndarray:
    random = np.random.default_rng(0)
    mesh = random.uniform(*_FACE, size=(478, 2)) * SIZE
    mesh[10], mesh[152] = (0.5 * SIZE, _FACE[0] * SIZE), (0.5 * SIZE, _FACE[1] * SIZE)
    for name, points in _EYES_AND_MOUTH.items():
        turn = np.linspace(0, 2 * np.pi, len(points), endpoint=False)
        radius = 0.1 if name == "mouth" else 0.05
        place = np.array(_PLACES[name]) + radius * np.stack([np.cos(turn), 0.5 * np.sin(turn)], axis=1)
        mesh[list(points)] = place * SIZE
    for upper, lower, middle in ((13, 14, 0.7), (159, 145, 0.4), (386, 374, 0.4)):
        opened = gap * _MOST_GAP if upper == 13 else eye * _MOST_EYE
        mesh[upper, 1], mesh[lower, 1] = middle * SIZE - opened / 2, middle * SIZE + opened / 2
        mesh[upper, 0] = mesh[lower, 0] = {13: 0.5, 159: 0.35, 386: 0.65}[upper] * SIZE
    return mesh
