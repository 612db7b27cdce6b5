"""Learning who a face is: every training person is a class, with a margin between them (CosFace, Wang et al., 2018).

Most people are in one clip only, so the light, the colours and the framing of a clip must not tell who it is: each face
is lit, tinted, moved, softened anew. Options of a phase: `batch` faces.

N faces, K pixels of a cut-out's side, P people, D embedding
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from visavis.evaluation.crop_cache import CroppedClip
from visavis.evaluation.face_embedder import FaceEmbedder
from visavis.training.errors import TrainingError
from visavis.training.plan import Phase
from visavis.training.task import ParameterGroup

_SCALE, _MARGIN = 20.0, 0.2
# Of the cut-out's side.
_LEAST_SIDE: Final = 0.78
_TINT, _LIGHT, _SLOPE, _NOISE = 0.12, 0.25, 0.25, 0.02
_SOFT_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class FaceBatch:
    """Faces [N, 3, K, K] from 0 to 1, and whose they are [N]."""

    faces: Tensor
    people: Tensor


class PeopleClassifier(nn.Module):
    """The embedder and a vector for each training person; these are left behind when it ships."""

    def __init__(self, embedder: FaceEmbedder, people: int) -> None:
        super().__init__()
        self.embedder = embedder
        self.people_PD = nn.Parameter(torch.randn(people, embedder.config["embedding"]))

    def forward(self, faces_N3KK: Tensor) -> Tensor:
        """The cosine of each face and each person, [N, P]."""
        embedded_ND: Tensor = self.embedder(faces_N3KK)
        return embedded_ND @ functional.normalize(self.people_PD, dim=1).T


class FaceEmbedderTask:
    """Fits `visavis.training.task.Task`."""

    def __init__(
        self, embedder: FaceEmbedder, training: Sequence[CroppedClip], held_out: Sequence[CroppedClip]
    ) -> None:
        self._people = sorted({clip.identity for clip in training})
        if set(self._people) & {clip.identity for clip in held_out} or len(self._people) < 2:
            raise TrainingError("two people at least must train, and nobody may be in both splits")
        self._training, self._held_out = training, held_out
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self._classifier = PeopleClassifier(embedder, len(self._people))

    @property
    def model(self) -> PeopleClassifier:
        return self._classifier

    def enter_phase(self, phase: Phase) -> None:
        """Nothing changes."""

    def begin_phase(self, phase: Phase) -> Sequence[ParameterGroup]:
        if set(phase.options) != {"batch"} or phase.options["batch"] < 1:
            raise TrainingError(f"phase {phase.name}: the one option of a face embedder is batch, 1 or more")
        return [ParameterGroup(list(self._classifier.parameters()))]

    def batch(self, phase: Phase, chance: np.random.Generator) -> FaceBatch:
        """Random moments of random clips, each lit and cut out in its own way."""
        faces, people = [], []
        for index in chance.integers(len(self._training), size=int(phase.options["batch"])):
            clip = self._training[int(index)]
            moment = int(chance.integers(len(clip.faces_PKK3)))
            pixels = np.ascontiguousarray(clip.faces_PKK3[moment].transpose(2, 0, 1))
            faces.append(_varied(torch.from_numpy(pixels).float() / 255, chance))
            people.append(self._people.index(clip.identity))
        return FaceBatch(torch.stack(faces), torch.tensor(people))

    def loss(self, forward: nn.Module, batch: FaceBatch, device: torch.device) -> Mapping[str, Tensor]:
        """Cross entropy of the cosines, the right one lowered by the margin."""
        people_N = batch.people.to(device)
        cosines_NP = forward(batch.faces.to(device)).float()
        right_NP = functional.one_hot(people_N, len(self._people))
        loss = functional.cross_entropy(_SCALE * (cosines_NP - _MARGIN * right_NP), people_N)
        return {"loss": loss, "right": (cosines_NP.argmax(dim=1) == people_N).float().mean()}

    def evaluate(self, averaged: nn.Module, phase: Phase, device: torch.device, samples: Path) -> Mapping[str, float]:
        """On held-out people: how often their frames are nearest to their own portrait, and the cosines behind it."""
        assert isinstance(averaged, PeopleClassifier)
        portraits_QD = averaged.embedder.embed(np.stack([clip.faces_PKK3[0] for clip in self._held_out]))
        own, others, nearest = [], [], []
        for number, clip in enumerate(self._held_out):
            cosines_NQ = averaged.embedder.embed(clip.faces_PKK3[1:]) @ portraits_QD.T
            nearest.append(float((cosines_NQ.argmax(dim=1) == number).float().mean()))
            own.append(float(cosines_NQ[:, number].mean()))
            strange = np.delete(cosines_NQ.numpy(), number, axis=1)
            others.append(float(strange.mean()) if strange.size else 0.0)
        means = {"own_portrait_nearest": nearest, "cosine": own, "cosine_of_others": others}
        return {name: float(np.mean(values)) for name, values in means.items()}


def _varied(face_3KK: Tensor, chance: np.random.Generator) -> Tensor:
    size = face_3KK.shape[-1]
    side = round(size * chance.uniform(_LEAST_SIDE, 1))
    top, left = chance.integers(size - side + 1, size=2)
    cut = face_3KK[None, :, top : top + side, left : left + side]
    face = functional.interpolate(cut, (size, size), mode="bilinear", align_corners=False)
    if chance.random() < 0.5:
        face = face.flip(3)
    if chance.random() < _SOFT_SHARE:
        face = functional.avg_pool2d(face, 3, stride=1, padding=1, count_include_pad=False)
    tint = np.exp(chance.normal(0, _TINT, size=3) + chance.normal(0, _LIGHT)).astype(np.float32)
    across, down = chance.normal(0, _SLOPE, size=2)
    place = torch.linspace(-1, 1, size)
    lit = face[0] * torch.from_numpy(tint)[:, None, None] * (1 + across * place + down * place[:, None]).clamp(min=0.1)
    noise = torch.from_numpy(chance.standard_normal(lit.shape, dtype=np.float32)) * _NOISE
    varied_3KK: Tensor = (lit + noise).clamp(0, 1).float()
    return varied_3KK
