"""What the plans of the motion trainings say: `task_options`, and the options of their phases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from visavis.training.errors import TrainingError

Chosen = TypeVar("Chosen")


@dataclass(frozen=True, slots=True)
class MotionOptions:
    """Of a whole training (`task_options`)."""

    # A latent cell that is all mouth counts 1 + this.
    mouth: float
    # Probabilities: of noise that differs from chunk to chunk, of dropped conditions, of an ID picture that is not the
    # clip's first frame. Dropped together more often than alone: Joint CFG's second branch knows neither.
    asynchronous: float
    drop_both: float
    drop_identity: float
    drop_speech: float
    other_portrait: float
    # Share of the noise levels that are drawn evenly.
    uniform: float
    # Clips are learnt mirrored as well.
    mirrored: bool
    # Of the samples that are drawn while training.
    guidance_scale: float

    def __post_init__(self) -> None:
        shares = (self.asynchronous, self.drop_both, self.drop_identity, self.drop_speech, self.other_portrait)
        if not all(0 <= share <= 1 for share in (*shares, self.uniform)):
            raise ValueError("probabilities and shares are from 0 to 1")
        if self.drop_both + self.drop_identity + self.drop_speech > 1 or self.mouth < 0 or self.guidance_scale < 1:
            raise ValueError("the drops add up to 1 at most, mouth is at least 0, guidance_scale at least 1")


@dataclass(frozen=True, slots=True)
class TeacherOptions:
    """Of a phase: samples a batch, and the SpeechAE's learning rate over the transformer's; 0 holds it still."""

    batch: int
    speech_rate: float

    def __post_init__(self) -> None:
        if self.batch < 1 or self.speech_rate < 0:
            raise ValueError("batch is at least 1, speech_rate at least 0")


@dataclass(frozen=True, slots=True)
class StudentOptions:
    """Of a phase: as a teacher's, and the share of batches that pair chunks at any noise with a clean context.

    `context_noise` is the most noise in such a context, which is yet called clean: what a live session remembers is its
    own, not quite clean work.
    """

    batch: int
    speech_rate: float
    clean_context: float
    context_noise: float

    def __post_init__(self) -> None:
        if self.batch < 1 or self.speech_rate < 0:
            raise ValueError("batch is at least 1, speech_rate at least 0")
        if not 0 <= self.clean_context <= 1 or not 0 <= self.context_noise <= 1:
            raise ValueError("clean_context and context_noise are from 0 to 1")


def read_options(kind: type[Chosen], options: Mapping[str, Any], where: str) -> Chosen:
    """Raises TrainingError, naming what there is, for unknown, missing or impossible options."""
    try:
        return kind(**options)
    except TypeError as error:
        names = ", ".join(field.name for field in fields(kind))  # type: ignore[arg-type]
        raise TrainingError(f"{where}: its options are {names}") from error
    except ValueError as error:
        raise TrainingError(f"{where}: {error}") from error
