"""The one training loop: any task, resumed after any stop, on a CPU, a GPU or several.

A task says what is learnt; the loop says how: AdamW with warm-up and decay, accumulation, clipping, a moving average,
checkpoints, logs. All chance of a batch is drawn from generators of (seed, step, batch, process), so a resumed training
needs no state of its data order and gives the same curve.

RUN/plan.json, checkpoints/, log.jsonl, tensorboard/, samples/
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from visavis.training.averaging import average_of
from visavis.training.checkpoint_folder import CheckpointFolder, State
from visavis.training.errors import TrainingError
from visavis.training.hardware import accelerator_for, describe
from visavis.training.journal import Journal
from visavis.training.plan import Phase, Plan, save_plan
from visavis.training.schedule import learning_rate
from visavis.training.stop_signals import StopSignals
from visavis.training.task import Limits, Outcome, Progress, Task

_BETAS: Final = (0.9, 0.95)
_WEIGHT_DECAY: Final = 0.01
_GRADIENT_NORM: Final = 1.0
# A step whose gradient is not finite is left out; so many in a row end the training.
_BROKEN_STEPS: Final = 10
_STEPS_A_LINE: Final = 10
# A GPU takes a batch in less time than it takes a core to copy one. Each thread has one ready, and one is under way.
_LOADING_THREADS: Final = min(max(2, len(os.sched_getaffinity(0)) // 2), 8)
_BATCHES_AHEAD: Final = _LOADING_THREADS + 1


@dataclass(slots=True)
class _Place:
    """Where in the plan a training stands."""

    step: int
    phase: int
    phase_steps: int
    phase_minutes: float


class Training:
    """One run of a training in one folder."""

    def __init__(
        self,
        task: Task[Any],
        plan: Plan,
        folder: Path,
        device: str,
        announce: Callable[[Progress], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`device` is "auto" or "cpu"; `announce` is told after each step; `clock` counts seconds."""
        self._task, self._plan, self._folder = task, plan, folder
        self._announce, self._clock = announce, clock
        self._accelerator = accelerator_for(device)
        self._device: torch.device = self._accelerator.device
        self._model = task.model.to(self._device)
        self._averaged = average_of(self._model, plan.average_decay)
        self._checkpoints = CheckpointFolder(folder / "checkpoints", plan.fingerprint)
        self._place = _Place(step=0, phase=0, phase_steps=0, phase_minutes=0.0)
        self._optimizer: torch.optim.AdamW | None = None
        self._broken_steps = 0
        self._untold: list[dict[str, float]] = []
        self._stop: Callable[[], bool] = lambda: False
        self._saved_at = self._evaluated_at = clock()

    def run(self, limits: Limits) -> Outcome:
        """Trains from the last checkpoint in the folder, or from the task's weights, until plan or limits end.

        SIGTERM and Ctrl-C end it after the step and a checkpoint. Raises TrainingError: another plan's checkpoint, a
        full disk, a gradient that stays infinite; the last good checkpoint stays in all cases.
        """
        state = self._checkpoints.load_latest()
        if state is not None:
            self._restore(state)
        writes = self._accelerator.is_main_process
        if writes:
            save_plan(self._plan, self._folder)
        with StopSignals() as signals, Journal(self._folder, self._place.step, writes) as self._journal:
            self._journal.write("start", self._place.step, {"hardware": describe(self._accelerator)})
            self._stop = self._order_to_stop(limits, signals)
            optimizer_state = None if state is None else state["optimizer"]
            while self._place.phase < len(self._plan.phases):
                if not self._run_phase(self._plan.phases[self._place.phase], optimizer_state):
                    return Outcome(self._place.step, finished=False)
                self._place = _Place(self._place.step, self._place.phase + 1, 0, 0.0)
                optimizer_state = None
        return Outcome(self._place.step, finished=True)

    def _run_phase(self, phase: Phase, optimizer_state: State | None) -> bool:
        """Whether the phase came to its end. An optimiser's state means that it is resumed."""
        if optimizer_state is None:
            self._enter(phase)
        forward = self._begin(phase, optimizer_state)
        first_step = self._place.step
        with ThreadPoolExecutor(_LOADING_THREADS) as threads:
            batches = self._batches(phase, threads)
            before = self._clock()
            while phase.progress(self._place.phase_steps, self._place.phase_minutes) < 1.0:
                measures = self._take_step(phase, forward, batches)
                now = self._clock()
                seconds, before = now - before, now
                stop = self._move_on(seconds)
                self._tell(phase, measures, seconds)
                if stop:
                    self._save()
                    return False
                self._save_and_evaluate_when_due(phase)
        if self._place.step > first_step:  # not when it was over already
            self._evaluate(phase)
            self._save()
        return True

    def _enter(self, phase: Phase) -> None:
        """A phase starts from the averaged weights of the one before, and with an average of its own."""
        self._model.load_state_dict(self._averaged.module.state_dict())
        with torch.random.fork_rng():
            torch.manual_seed(_seed(self._plan.seed, self._place.step, 0, 0))
            self._task.enter_phase(phase)
        self._averaged = average_of(self._model, self._plan.average_decay)
        self._evaluate(phase)

    def _begin(self, phase: Phase, optimizer_state: State | None) -> nn.Module:
        groups = self._task.begin_phase(phase)
        self._model.train().requires_grad_(False)
        for group in groups:
            for parameter in group.parameters:
                parameter.requires_grad_(True)
        _recompute_activations(self._model, phase.gradient_checkpointing)
        self._optimizer = torch.optim.AdamW(
            [{"params": list(group.parameters), "rate": group.rate} for group in groups],
            lr=0.0,
            betas=_BETAS,
            weight_decay=_WEIGHT_DECAY,
            fused=True,
        )
        if optimizer_state is not None:
            self._optimizer.load_state_dict(optimizer_state)
        self._model = self._accelerator.unwrap_model(self._model, keep_fp32_wrapper=False)
        forward: nn.Module = self._accelerator.prepare_model(self._model)
        return forward

    def _batches(self, phase: Phase, threads: ThreadPoolExecutor) -> Iterator[tuple[int, Any]]:
        """Each batch with the seed of its step, made ahead."""
        waiting: deque[tuple[int, Future[Any]]] = deque()
        for step in count(self._place.step):
            for number in range(phase.accumulation):
                seed = _seed(self._plan.seed, step, number, self._accelerator.process_index)
                waiting.append((seed, threads.submit(self._task.batch, phase, np.random.default_rng(seed))))
                if len(waiting) > _BATCHES_AHEAD:
                    first_seed, first = waiting.popleft()
                    yield first_seed, first.result()

    def _take_step(self, phase: Phase, forward: nn.Module, batches: Iterator[tuple[int, Any]]) -> dict[str, float]:
        assert self._optimizer is not None
        rate = learning_rate(phase, self._place.phase_steps, self._place.phase_minutes)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        sums: dict[str, Tensor] = {}
        for number in range(phase.accumulation):
            seed, batch = next(batches)
            torch.manual_seed(seed)
            last = number + 1 == phase.accumulation
            with nullcontext() if last else self._accelerator.no_sync(forward):
                measures = self._task.loss(forward, batch, self._device)
                self._accelerator.backward(measures["loss"] / phase.accumulation)
            for name, value in measures.items():
                sums[name] = sums.get(name, torch.zeros((), device=self._device)) + value.detach()
        norm = self._apply_gradient()
        averages = {name: float(value) / phase.accumulation for name, value in sums.items()}
        return {**averages, "gradient_norm": norm, "learning_rate": rate}

    def _apply_gradient(self) -> float:
        """Clips and steps; returns the gradient's norm. Raises TrainingError when it stays infinite."""
        assert self._optimizer is not None
        chosen = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        norm = float(nn.utils.clip_grad_norm_(chosen, _GRADIENT_NORM))
        if math.isfinite(norm):
            self._optimizer.step()
            self._averaged.update_parameters(self._model)
            self._broken_steps = 0
        else:
            self._broken_steps += 1
        self._optimizer.zero_grad(set_to_none=True)
        if self._broken_steps == _BROKEN_STEPS:
            raise TrainingError(
                f"the gradient was not finite in {_BROKEN_STEPS} steps up to {self._place.step + 1}: "
                "the last checkpoint is good; start from its weights with a lower learning rate"
            )
        return norm

    def _move_on(self, seconds: float) -> bool:
        """Counts the step; whether to stop. Clocks and signals of several processes become one."""
        minutes, stop = seconds / 60, self._stop()
        if self._accelerator.num_processes > 1:
            seen = torch.tensor([minutes, float(stop)], device=self._device)
            agreed = self._accelerator.reduce(seen, reduction="mean")
            minutes, stop = float(agreed[0]), float(agreed[1]) > 0
        self._place.step += 1
        self._place.phase_steps += 1
        self._place.phase_minutes += minutes
        return stop

    def _order_to_stop(self, limits: Limits, signals: StopSignals) -> Callable[[], bool]:
        """Asked before a step is counted: whether it was the last of this run."""
        first_step, began = self._place.step, self._clock()

        def ordered() -> bool:
            enough_steps = limits.steps is not None and self._place.step + 1 >= first_step + limits.steps
            late = limits.minutes is not None and self._clock() - began >= 60 * limits.minutes
            return signals.came or enough_steps or late

        return ordered

    def _tell(self, phase: Phase, measures: dict[str, float], seconds: float) -> None:
        """One line for some steps, with their means; a broken step has a line of its own."""
        if math.isfinite(measures["gradient_norm"]):
            self._untold.append({**measures, "seconds": seconds})
        else:
            self._journal.write("broken", self._place.step, {"phase": phase.name, "seconds": seconds})
        if self._untold and self._place.step % _STEPS_A_LINE == 0:
            means = {name: fmean(line[name] for line in self._untold) for name in self._untold[0]}
            self._journal.write("train", self._place.step, {"phase": phase.name, **means})
            self._untold.clear()
        done = phase.progress(self._place.phase_steps, self._place.phase_minutes)
        self._announce(Progress(self._place.step, phase.name, done, measures["loss"], seconds))

    def _save_and_evaluate_when_due(self, phase: Phase) -> None:
        every = self._plan.every_minutes
        if self._clock() - self._saved_at >= 60 * every.checkpoint:
            self._save()
        if self._clock() - self._evaluated_at >= 60 * every.evaluation:
            self._evaluate(phase)

    def _evaluate(self, phase: Phase) -> None:
        if self._accelerator.is_main_process:
            samples = self._folder / "samples" / f"step-{self._place.step:08d}-{phase.name}.png"
            samples.parent.mkdir(parents=True, exist_ok=True)
            with torch.no_grad(), self._accelerator.autocast():
                measures = self._task.evaluate(self._averaged.module, phase, self._device, samples)
            minutes = self._place.phase_minutes
            self._journal.write("evaluation", self._place.step, {"phase": phase.name, "minutes": minutes, **measures})
        self._accelerator.wait_for_everyone()
        self._evaluated_at = self._clock()

    def _save(self) -> None:
        assert self._optimizer is not None
        if self._accelerator.is_main_process:
            state: State = {
                "model": self._model.state_dict(),
                "averaged": self._averaged.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "place": asdict(self._place),
            }
            self._checkpoints.save(self._place.step, state)
        self._accelerator.wait_for_everyone()  # a run that follows at once finds the same checkpoint in every process
        self._saved_at = self._clock()

    def _restore(self, state: State) -> None:
        self._model.load_state_dict(state["model"])
        self._averaged.load_state_dict(state["averaged"])
        self._place = _Place(**state["place"])


def _seed(seed: int, step: int, number: int, process: int) -> int:
    """Of one batch: any two differ, and none depends on what was drawn before."""
    return int(np.random.SeedSequence([seed, step, number, process]).generate_state(1, np.uint64)[0] >> 1)


def _recompute_activations(model: Any, wanted: bool) -> None:
    """diffusers' gradient checkpointing, where the model has it."""
    if wanted:
        model.enable_gradient_checkpointing()
    elif getattr(model, "is_gradient_checkpointing", False):
        model.disable_gradient_checkpointing()
