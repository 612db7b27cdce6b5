"""The portraits of held-out people, as the face embedder sees them, and which of them a frame is nearest to.

Q portraits, F frames, D embedding
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from visavis.evaluation.clip_people import person_of
from visavis.evaluation.judges import Judges, look
from visavis.training.data.clips import Clip


@dataclass(frozen=True, slots=True)
class Portraits:
    """One row a clip: its frame 0 [Q, D], its key, and whose it is."""

    embeddings_QD: Tensor
    keys: tuple[str, ...]
    people: tuple[object, ...]

    def cosines(self, embeddings_FD: Tensor, key: str) -> Tensor:
        """With the portrait of clip `key`, [F]."""
        return embeddings_FD @ self.embeddings_QD[self.keys.index(key)]

    def nearest(self, embeddings_FD: Tensor, key: str) -> Tensor:
        """Whether the portrait of clip `key` is nearer than that of every other person, true or false [F]."""
        own = self.keys.index(key)
        others = torch.tensor([person != self.people[own] for person in self.people])
        cosines_FQ = embeddings_FD @ self.embeddings_QD.T
        highest_F = cosines_FQ.masked_fill(~others, -torch.inf).amax(dim=1)
        return cosines_FQ[:, own] > highest_F

    @property
    def people_count(self) -> int:
        """How many different people there are."""
        return len(set(self.people))


def portraits_of(clips: Iterable[Clip], judges: Judges) -> Portraits | None:
    """None where nobody can tell faces apart. Clips whose portrait shows no face are left out."""
    if judges.embedder is None or judges.faces is None:
        return None
    rows = []
    for clip in clips:
        seen = look(clip.frames_FHW3[:1], judges)
        if seen.embeddings_FD is not None:
            rows.append((seen.embeddings_FD[0], clip.key, person_of(clip)))
    if not rows:
        return None
    embeddings, keys, people = zip(*rows, strict=True)
    return Portraits(torch.stack(embeddings), tuple(keys), tuple(people))
