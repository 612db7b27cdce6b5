"""What the plan of a distillation says: `task_options`, and the options of its phases."""

from __future__ import annotations

from dataclasses import dataclass

from visavis.training.motion.options import MotionOptions


@dataclass(frozen=True, slots=True)
class DistillOptions:
    """Of a whole training (`task_options`)."""

    # Of the adapter.
    rank: int
    # As in `MotionOptions`.
    mouth: float
    other_portrait: float
    mirrored: bool

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError("rank is at least 1")
        self.motion()

    def motion(self) -> MotionOptions:
        """How samples are drawn: with all their conditions. Raises ValueError."""
        return MotionOptions(
            mouth=self.mouth,
            asynchronous=0.0,
            drop_both=0.0,
            drop_identity=0.0,
            drop_speech=0.0,
            other_portrait=self.other_portrait,
            uniform=0.0,
            mirrored=self.mirrored,
            guidance_scale=1.0,
        )


@dataclass(frozen=True, slots=True)
class DistillPhaseOptions:
    """Of a phase.

    rollout: learn on streams that the fast network made itself, else on the clips of the data. chunks: of a stream;
    those that a sample does not have hear its speech again, and need `rollout`.
    """

    batch: int
    chunks: int
    rollout: bool

    def __post_init__(self) -> None:
        if self.batch < 1 or self.chunks < 1:
            raise ValueError("batch and chunks are at least 1")
