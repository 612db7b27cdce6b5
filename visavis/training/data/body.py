"""The parametric body and its face actions, as one linear function of the actions.

anny poses blend shapes and then bones; with the bones at rest its vertices are linear in the facial actions, and what
an action adds is the same for everyone (both measured: within 4e-7 m). So a clip is a matrix product.

Legend: A actions, F frames, V vertices.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import anny
import numpy as np
import torch

from visavis.training.data.makehuman import UP_AXIS, Floats, QuadMesh

BODY_VERTICES = 13_380  # of the base mesh; helper geometry (joints, proxies) follows

# Where the lips meet in the middle, on the base mesh `hm08`.
UPPER_LIP_VERTEX = 520
LOWER_LIP_VERTEX = 523
_GAP_AT_REST = -0.0012  # metres: lips press each other a little


def lip_gap(vertices_FV3: Floats) -> Floats:
    """How far the lips are apart in the middle, in metres [F], for vertices [F, V, 3] of the base mesh."""
    return np.asarray(vertices_FV3[:, UPPER_LIP_VERTEX, UP_AXIS] - vertices_FV3[:, LOWER_LIP_VERTEX, UP_AXIS])


@dataclass(frozen=True, slots=True)
class Figure:
    """A mesh that the facial actions move: a person, or something that a person wears. Metres."""

    actions: tuple[str, ...]
    neutral_V3: Floats
    # what a full action adds
    offsets_AV3: Floats

    def pose(self, curves: Mapping[str, Floats]) -> Floats:
        """Vertices [F, V, 3] for curves [F] of actions (0 to 1); no curve gives one neutral frame.

        Raises ValueError for an unknown action or curves of different lengths.
        """
        unknown = sorted(set(curves) - set(self.actions))
        if unknown:
            raise ValueError(f"unknown facial actions: {', '.join(unknown)}")
        lengths = {len(curve) for curve in curves.values()} or {1}
        if len(lengths) > 1:
            raise ValueError("all action curves need the same number of frames")
        if not curves:
            return self.neutral_V3[None]
        rows = [self.actions.index(action) for action in curves]
        weights_FA = np.stack(list(curves.values()), axis=1).astype(self.neutral_V3.dtype)
        moved = weights_FA @ self.offsets_AV3[rows].reshape(len(rows), -1)
        return np.asarray(self.neutral_V3 + moved.reshape(-1, *self.neutral_V3.shape))


class Body:
    """anny's parametric body with all 19,158 base vertices in MakeHuman's `hm08` order."""

    def __init__(self) -> None:
        self._model: Any = anny.Anny(
            rig="makehuman", topology="makehuman", facial_actions="all", local_changes="none", phenotypes="all"
        ).to(dtype=torch.float32)
        self.mesh = QuadMesh(
            self._model.faces.numpy(),
            self._model.face_texture_coordinate_indices.numpy(),
            self._model.texture_coordinates.numpy().astype(np.float32),
        )
        self.actions: tuple[str, ...] = tuple(self._model.facial_action_labels)
        self.offsets_AV3 = self._action_offsets()

    def figure(self, phenotype: Mapping[str, float]) -> Figure:
        """The body of a phenotype (anny's labels, 0 to 1 each), with every facial action; its lips meet at rest."""
        neutral_V3 = self._vertices(phenotype, torch.zeros(1, len(self.actions)))[0]
        # as anny makes them, some people's lips stand 1.5 mm apart, and teeth shine through
        closing_V3 = self.offsets_AV3[self.actions.index("mouthClose")]
        share = (float(lip_gap(neutral_V3[None])[0]) - _GAP_AT_REST) / -float(lip_gap(closing_V3[None])[0])
        return Figure(self.actions, neutral_V3 + share * closing_V3, self.offsets_AV3)

    def _action_offsets(self) -> Floats:
        neutral, *moved = self._vertices({}, torch.eye(len(self.actions) + 1)[:, 1:])
        offsets_AV3: Floats = np.stack(moved) - neutral
        offsets_AV3.flags.writeable = False
        return offsets_AV3

    def _vertices(self, phenotype: Mapping[str, float], faces_FA: torch.Tensor) -> Floats:
        with torch.inference_mode():
            output = self._model(
                phenotype_kwargs={name: torch.full((len(faces_FA),), value) for name, value in phenotype.items()},
                facial_actions=dict(zip(self.actions, faces_FA.unbind(dim=1), strict=True)),
            )
        return np.asarray(output["vertices"].double().numpy(), dtype=np.float64)


@lru_cache(maxsize=1)
def load_body() -> Body:
    """The one body of this process; it never changes, and takes a second to load."""
    return Body()
