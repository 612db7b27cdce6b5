"""What the plan of Asynchronous Streaming Distillation says beside what a student's says."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final, Literal, get_args

from visavis.models.id_context import Cache
from visavis.training.motion.options import read_options
from visavis.training.plan import Plan

# What an ablation leaves out (paper sections 4.3 and D.1). Without "asd" the student learns on as before, as long.
Without = Literal["", "contrastive", "smoothness", "asd", "sink", "context"]
ABLATIONS: Final[tuple[Without, ...]] = get_args(Without)[1:]

_CACHES: Final[dict[Without, Cache]] = {"sink": "no_sink", "context": "no_context"}


@dataclass(frozen=True, slots=True)
class AsdOptions:
    """Of a whole training; they stand in `task_options` beside `MotionOptions`."""

    # alpha and beta of Eq. 24, tau of Eq. 21
    contrastive: float
    smoothness: float
    temperature: float
    without: Without = ""

    def __post_init__(self) -> None:
        if min(self.contrastive, self.smoothness) < 0 or self.temperature <= 0:
            raise ValueError("contrastive and smoothness are at least 0, temperature above 0")
        if self.without not in get_args(Without):
            raise ValueError(f"without is one of {', '.join(ABLATIONS)}")

    @property
    def contrastive_weight(self) -> float:
        """What remains of alpha."""
        return 0.0 if self.without in ("contrastive", "asd") else self.contrastive

    @property
    def smoothness_weight(self) -> float:
        """What remains of beta."""
        return 0.0 if self.without in ("smoothness", "asd") else self.smoothness

    @property
    def needs_teacher(self) -> bool:
        """Whether anything is left to learn from one."""
        return self.contrastive_weight > 0 or self.smoothness_weight > 0

    @property
    def cache(self) -> Cache:
        """What of the cache the student has."""
        return _CACHES.get(self.without, "full")


def split_plan(plan: Plan) -> tuple[AsdOptions, Plan]:
    """The options of ASD, and the plan as that of a student. Raises TrainingError for options that are not there."""
    own = {field.name for field in fields(AsdOptions)}
    chosen = {name: value for name, value in plan.task_options.items() if name in own}
    others = {name: value for name, value in plan.task_options.items() if name not in own}
    return read_options(AsdOptions, chosen, f"task_options of {plan.task}"), replace(plan, task_options=others)


def without(plan: Plan, left_out: str) -> Plan:
    """The plan of an ablation: another plan, so it never shares a run folder with the whole one."""
    return replace(plan, task_options={**plan.task_options, "without": left_out})
