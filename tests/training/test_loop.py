"""The loop: the same curve however often it was stopped, and a good checkpoint survives everything."""

from __future__ import annotations

import errno
import math
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.reserved_port import reserved_port
from tests.training.line_task import LineTask, line_phase, line_plan
from visavis.training.checkpoint_folder import CheckpointFolder
from visavis.training.errors import TrainingError
from visavis.training.journal import read_journal
from visavis.training.loop import Training
from visavis.training.plan import Cadence, Phase, read_saved_plan
from visavis.training.task import Limits, Outcome, Progress

NO_LIMITS = Limits(steps=None, minutes=None)
TWO_PHASES = (line_phase("first", steps=7), line_phase("second", steps=6, last_layer=True))


class Run:
    """Trains in one folder and remembers what was announced."""

    def __init__(self, folder: Path, *phases: Phase) -> None:
        self.folder = folder
        self.plan = line_plan(*phases)
        self.losses: dict[int, float] = {}
        self.task = LineTask()

    def train(self, limits: Limits = NO_LIMITS, task: LineTask | None = None) -> Outcome:
        self.task = task or LineTask()
        return Training(self.task, self.plan, self.folder, "cpu", self._note).run(limits)

    def weights(self) -> dict[str, torch.Tensor]:
        state = CheckpointFolder(self.folder / "checkpoints", self.plan.fingerprint).load_latest()
        assert state is not None
        return {**state["model"], **state["averaged"]}

    def _note(self, progress: Progress) -> None:
        self.losses[progress.step] = progress.loss


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run", *TWO_PHASES)


def test_a_plan_runs_through_its_phases_and_learns(tmp_path: Path) -> None:
    run = Run(tmp_path, line_phase("first", steps=60), line_phase("second", steps=5))
    assert run.train() == Outcome(step=65, finished=True)
    assert run.task.entered == ["first", "second"]
    assert run.losses[60] < 0.3 * run.losses[1]
    assert [line["step"] for line in read_journal(tmp_path, "evaluation")] == [0, 60, 60, 65]
    assert read_saved_plan(tmp_path) == run.plan
    assert run.train() == Outcome(step=65, finished=True)


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_a_stopped_training_gives_the_same_curve(run: Run, tmp_path: Path, steps: int) -> None:
    whole = Run(tmp_path / "whole", *TWO_PHASES)
    whole.train()
    entered: list[str] = []
    while not run.train(Limits(steps, None)).finished:
        entered += run.task.entered
    assert run.losses == whole.losses
    assert [*entered, *run.task.entered] == ["first", "second"]
    for name, value in whole.weights().items():
        torch.testing.assert_close(run.weights()[name], value, rtol=0, atol=0)


def test_the_log_has_no_step_twice_after_a_resume(run: Run) -> None:
    run.train(Limits(11, None))
    CheckpointFolder(run.folder / "checkpoints", "").paths()[-1].unlink()  # as if killed: back to the first phase's end
    assert [line["step"] for line in read_journal(run.folder, "train")] == [10]
    run.train()
    assert [line["step"] for line in read_journal(run.folder, "train")] == [10]
    assert [line["step"] for line in read_journal(run.folder, "evaluation")] == [0, 7, 7, 7, 13]


def test_only_what_a_phase_trains_changes(run: Run) -> None:
    run.train(Limits(7, None))
    before = {name: value.clone() for name, value in run.weights().items()}
    run.train()
    after = run.weights()
    assert torch.equal(after["0.weight"], before["module.0.weight"])
    assert not torch.equal(after["2.weight"], before["module.2.weight"])


def test_a_group_learns_at_its_own_rate(tmp_path: Path) -> None:
    moved = {}
    for rate in (0.0, 1.0, 0.01):
        run = Run(tmp_path / str(rate), line_phase("only", steps=5, last_rate=rate))
        run.train()
        learnt = run.weights()
        moved[rate] = {
            name: float((learnt[name] - value).abs().max()) for name, value in LineTask().model.state_dict().items()
        }
    assert moved[0.0]["2.weight"] == 0.0
    assert 0.0 < moved[0.01]["2.weight"] < 0.05 * moved[1.0]["2.weight"]
    assert min(layers["0.weight"] for layers in moved.values()) > 1e-4


def test_sigterm_ends_with_a_checkpoint_after_the_step(run: Run) -> None:
    calls = 0

    def factor() -> float:
        nonlocal calls
        calls += 1
        if calls == 5:  # in the first batch of the third step
            os.kill(os.getpid(), signal.SIGTERM)
        return 1.0

    before = signal.getsignal(signal.SIGTERM)
    assert run.train(task=LineTask(factor)) == Outcome(step=3, finished=False)
    assert signal.getsignal(signal.SIGTERM) == before
    assert run.train().finished


def test_a_time_limit_ends_a_run_and_phases_end_by_the_clock(tmp_path: Path) -> None:
    seconds = 0.0

    def clock() -> float:
        nonlocal seconds
        seconds += 10.0
        return seconds

    plan = line_plan(line_phase("all", steps=10_000, minutes=10.0))
    shown: list[Progress] = []

    def training() -> Training:
        return Training(LineTask(), plan, tmp_path, "cpu", shown.append, clock)

    first = training().run(Limits(None, minutes=4.0))
    assert not first.finished
    assert 0.2 < shown[-1].phase_progress < 0.5
    assert training().run(NO_LIMITS).finished
    assert shown[-1].phase_progress == 1.0
    assert first.step < shown[-1].step < 60


def test_a_loss_that_is_not_finite_is_left_out_and_ends_the_training_when_it_stays(run: Run) -> None:
    losses = iter([1.0, 1.0, math.nan, 1.0] + 2 * [1.0])
    run.train(Limits(3, None), LineTask(lambda: next(losses)))
    assert [line["step"] for line in read_journal(run.folder, "broken")] == [2]
    good = run.weights()
    assert all(bool(value.isfinite().all()) for value in good.values())
    with pytest.raises(TrainingError, match="not finite"):
        run.train(task=LineTask(lambda: math.nan))
    assert all(torch.equal(value, good[name]) for name, value in run.weights().items())


def test_a_full_disk_is_said_and_the_checkpoint_before_stays(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.train(Limits(2, None))
    good = run.weights()

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(TrainingError, match="full"):
            run.train(Limits(2, None))
    assert [path.name for path in sorted((run.folder / "checkpoints").iterdir())] == ["step-00000002.pt"]
    assert all(torch.equal(value, good[name]) for name, value in run.weights().items())
    assert run.train().finished


def test_a_checkpoint_of_another_plan_is_refused_and_kept(run: Run) -> None:
    run.train(Limits(2, None))
    other = Run(run.folder, line_phase("first", steps=8))
    with pytest.raises(TrainingError, match="another plan"):
        other.train()
    assert run.train().finished


def test_how_often_it_is_saved_is_no_other_plan() -> None:
    plan = line_plan()
    assert replace(plan, every_minutes=Cadence(1.0, 2.0)).fingerprint == plan.fingerprint
    assert replace(plan, seed=4).fingerprint != plan.fingerprint


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b""])
def test_a_broken_checkpoint_is_passed_over(run: Run, damage: Callable[[bytes], bytes]) -> None:
    run.train(Limits(2, None))
    run.train(Limits(2, None))
    newest = CheckpointFolder(run.folder / "checkpoints", "").paths()[-1]
    newest.write_bytes(damage(newest.read_bytes()))
    assert run.train(Limits(1, None)).step == 3
    for path in CheckpointFolder(run.folder / "checkpoints", "").paths():
        path.write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="can be read"):
        run.train()


@pytest.mark.timeout(300)
def test_a_kill_in_the_middle_of_a_checkpoint_loses_nothing_before_it(run: Run) -> None:
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from tests.training.test_loop import TWO_PHASES, Limits, Run

        run = Run(Path(sys.argv[1]), *TWO_PHASES)
        run.train(Limits(3, None))
        os.fsync = lambda _descriptor: os.kill(os.getpid(), signal.SIGKILL)
        run.train(Limits(3, None))
    """)
    child = subprocess.run([sys.executable, "-c", script, run.folder], timeout=250, cwd=Path(__file__).parents[2])
    assert child.returncode == -signal.SIGKILL
    assert [path.name for path in sorted((run.folder / "checkpoints").iterdir())] == [
        "step-00000003.pt",
        "step-00000006.pt.partial",
    ]
    assert run.train(Limits(1, None)).step == 4


def test_only_the_last_checkpoints_are_kept(run: Run) -> None:
    for _ in range(6):
        run.train(Limits(1, None))
    names = [path.name for path in CheckpointFolder(run.folder / "checkpoints", "").paths()]
    assert names == ["step-00000004.pt", "step-00000005.pt", "step-00000006.pt"]


@pytest.mark.timeout(300)
def test_two_processes_train_one_model(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import os, sys
        from pathlib import Path
        import torch
        from tests.training.test_loop import NO_LIMITS, TWO_PHASES, Limits, Run

        run = Run(Path(sys.argv[1]), *TWO_PHASES)
        assert not run.train(Limits(9, None)).finished
        assert run.train(NO_LIMITS).finished
        torch.save((run.task.model.state_dict(), run.losses), Path(sys.argv[1]) / f"{os.environ['RANK']}.pt")
    """)
    with reserved_port() as port:
        meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        children = [
            subprocess.Popen(
                [sys.executable, "-c", script, tmp_path],
                cwd=Path(__file__).parents[2],
                env={**os.environ, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank), "ACCELERATE_USE_CPU": "true"},
            )
            for rank in range(2)
        ]
        try:
            assert [child.wait(250) for child in children] == [0, 0]
        finally:
            for child in children:
                child.kill()
    (weights, losses), (other_weights, other_losses) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert losses != other_losses  # each has batches of its own
    assert all(torch.equal(value, other_weights[name]) for name, value in weights.items())
    assert [line["step"] for line in read_journal(tmp_path, "train")] == [10]
