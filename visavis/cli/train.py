"""`visavis train`: learns a part of a model, from the last checkpoint on after any stop."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from visavis.cli.errors import CommandError

if TYPE_CHECKING:
    from visavis.training.plan import Plan

_MODULE = "visavis.cli.train"
# Trainings of the diffusion transformer; all are exported alike.
_MOTION_TASKS = ("teacher", "student", "asd")
# `visavis.training.motion.asd_options.ABLATIONS`, of which a parser without torch cannot ask.
_ABLATIONS = ("contrastive", "smoothness", "asd", "sink", "context")


def add_train_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `train` and what is below it; `run` below carries it out."""
    parser = commands.add_parser("train", help="Train a part.", description="Train a part.", allow_abbrev=False)
    parts = parser.add_subparsers(title="parts", metavar="PART", required=True)
    _add_training(parts, "vae", _vae, "Train the video VAE on a data set of `visavis data render`.")
    _add_training(parts, "speech-ae", _speech_ae, "Train the SpeechAE on the speech of a data set, and on more speech.")
    _add_training(parts, "sync-net", _sync_net, "Train the network that judges lips (docs/evaluation.md).")
    _add_training(parts, "face-embedder", _face_embedder, "Train the network that judges identity.")
    _add_motion(parts, "teacher", _teacher, "Train the non-streaming teacher: a transformer that sees whole clips.")
    _add_motion(parts, "student", _student, "Train the streaming student, from a teacher's weights.")
    asd = _add_motion(parts, "asd", _asd, "Go on with a student (--weights) under its teacher's guidance.")
    asd.add_argument(
        "--teacher", type=Path, metavar="DIR", help="the trained teacher, for example weights/mini/teacher"
    )
    asd.add_argument("--without", choices=_ABLATIONS, help="an ablation: what is left out")
    _add_motion(parts, "distill", _distill, "Distil a student (--weights) into an adapter of few steps and one branch.")
    _add_dry_run(parts)
    _add_export(parts)


def run(options: argparse.Namespace) -> int:
    """Carries out one of the commands. Raises CommandError for what a user can put right."""
    from visavis.openmp import wait_asleep

    wait_asleep()
    try:
        _act(options)
    except ModuleNotFoundError as error:
        raise CommandError(f"{error.name} is not installed: pip install 'visavis[training]'") from error
    return 0


def _act(options: argparse.Namespace) -> None:
    from visavis.training.data.shards import ShardError
    from visavis.training.errors import TrainingError

    act: Callable[[argparse.Namespace], None] = options.act
    try:
        act(options)
    except (ShardError, TrainingError) as error:
        raise CommandError(str(error)) from error


def _vae(options: argparse.Namespace) -> None:
    from visavis.training.video_vae_training import video_vae_task

    _train(options, "vae", video_vae_task)


def _speech_ae(options: argparse.Namespace) -> None:
    from visavis.training.speech.training import speech_ae_task

    _train(options, "speech-ae", speech_ae_task)


def _sync_net(options: argparse.Namespace) -> None:
    from visavis.evaluation.sync_net_training import sync_net_task

    _train(options, "sync-net", sync_net_task)


def _face_embedder(options: argparse.Namespace) -> None:
    from visavis.evaluation.face_embedder_training import face_embedder_task

    _train(options, "face-embedder", face_embedder_task)


def _teacher(options: argparse.Namespace) -> None:
    from visavis.training.motion.setup import teacher_task

    _train(options, "teacher", partial(teacher_task, vae=options.vae, speech_ae=options.speech_ae))


def _student(options: argparse.Namespace) -> None:
    from visavis.training.motion.setup import student_task

    _train(options, "student", partial(student_task, vae=options.vae, speech_ae=options.speech_ae))


def _asd(options: argparse.Namespace) -> None:
    from visavis.training.motion.asd_options import without
    from visavis.training.motion.asd_setup import asd_task

    def ablated(plan: "Plan") -> "Plan":
        return without(plan, options.without) if options.without else plan

    make_task = partial(asd_task, vae=options.vae, speech_ae=options.speech_ae, teacher=options.teacher)
    _train(options, "asd", make_task, ablated)


def _distill(options: argparse.Namespace) -> None:
    from visavis.training.motion.distill_setup import distill_task

    _train(options, "distill", partial(distill_task, vae=options.vae, speech_ae=options.speech_ae))


def _dry_run(options: argparse.Namespace) -> None:
    from visavis.training.motion.dry_run import dry_run
    from visavis.training.plan import read_plan

    for phase in dry_run(read_plan(options.config)):
        print(f"{phase.phase}: {phase.parameters / 1e6:,.1f} million parameters learn")
        print(f"  memory of each process at the peak: {phase.peak_gib:.2f} GiB")
        for kind, size in sorted(phase.peak_bytes.items(), key=lambda part: -part[1]):
            print(f"    {kind:<13} {size / 2**30:8.2f}")
        seconds = phase.operations_a_sample / (1e12 * options.tflops)
        print(
            f"  {phase.operations_a_sample / 1e12:,.2f} TFLOP a sample: {seconds:.3f} s at {options.tflops:g} TFLOP/s"
        )
        print(f"  {3600 / seconds:,.0f} samples an hour and GPU; {phase.samples_a_step} a step of each process")


def _export(options: argparse.Namespace) -> None:
    from visavis.evaluation.face_embedder_training import export_face_embedder
    from visavis.evaluation.sync_net_training import export_sync_net
    from visavis.training.motion.distill_export import export_adapter
    from visavis.training.motion.export import export_motion, export_whole_model
    from visavis.training.plan import read_saved_plan
    from visavis.training.speech.export import export_speech_ae
    from visavis.training.video_vae_export import export_video_vae

    exports = {
        "speech-ae": export_speech_ae,
        "vae": export_video_vae,
        "sync-net": export_sync_net,
        "face-embedder": export_face_embedder,
        **dict.fromkeys(_MOTION_TASKS, export_motion),
        "distill": export_adapter,
    }
    task = read_saved_plan(options.run_folder).task
    if task not in exports:
        raise CommandError(f"{options.run_folder} is a training of {task!r}, which has nothing to export")
    if options.whole:
        if task not in _MOTION_TASKS:
            raise CommandError("--whole is for the training of a student, which makes a whole model of it")
        export_whole_model(options.run_folder, options.out, options.vae)
    else:
        exports[task](options.run_folder, options.out, options.data, options.cache)
    print(f"wrote {options.out}")


def _train(
    options: argparse.Namespace,
    task_name: str,
    make_task: Callable[..., object],
    adjusted: "Callable[[Plan], Plan]" = lambda plan: plan,
) -> None:
    """The same for every part: the plan, the task that `make_task` makes of it, the loop."""
    import torch

    from visavis.training.loop import Training
    from visavis.training.plan import read_plan
    from visavis.training.progress_line import ProgressLine
    from visavis.training.task import Limits

    plan = adjusted(read_plan(options.config))
    if plan.task != task_name:
        raise CommandError(f"{options.config} is a plan for {plan.task!r}, not for {task_name!r}")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    task = make_task(plan, options.data, options.out, options.cache, options.weights)
    with ProgressLine() as line:
        training = Training(task, plan, options.out, options.device, line.show)  # type: ignore[arg-type]
        outcome = training.run(Limits(options.steps, options.minutes))
    print(f"step {outcome.step}: " + ("the plan is done" if outcome.finished else "stopped; run it again to go on"))


def _add_motion(
    parts: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    act: Callable[[argparse.Namespace], None],
    summary: str,
) -> argparse.ArgumentParser:
    parser = _add_training(parts, name, act, summary)
    parser.add_argument("--vae", type=Path, metavar="DIR", help="whose latents are learnt (default: the shipped one)")
    parser.add_argument(
        "--speech-ae", type=Path, metavar="DIR", help="to start from (default: as --weights, or shipped)"
    )
    return parser


def _add_training(
    parts: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    act: Callable[[argparse.Namespace], None],
    summary: str,
) -> argparse.ArgumentParser:
    parser = parts.add_parser(
        name,
        help=summary,
        description=f"{summary} Stopped, it goes on from its last checkpoint. See docs/training.md.",
        allow_abbrev=False,
    )
    parser.set_defaults(module=_MODULE, act=act)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="plan, for example in configs/train")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of `visavis data render`")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN_DIR", help="checkpoints, logs and samples")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="start from this model folder's weights")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="decoded data (default: DATA.cache beside --data)")
    parser.add_argument("--minutes", type=float, metavar="M", help="stop after this time, with a checkpoint")
    parser.add_argument("--steps", type=int, metavar="N", help="stop after so many steps, with a checkpoint")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="%(default)s")
    parser.add_argument("--threads", type=int, metavar="T", help="of torch on the CPU (default: as torch does)")
    return parser


def _add_dry_run(parts: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = parts.add_parser(
        "dry-run",
        help="Count memory and work of a teacher's or student's plan.",
        description="Count memory and work of a teacher's or student's plan at its real shapes; nothing is computed.",
        allow_abbrev=False,
    )
    parser.set_defaults(module=_MODULE, act=_dry_run)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="plan, for example in configs/train")
    parser.add_argument(
        "--tflops", type=float, default=125.0, metavar="N", help="that the GPU reaches (%(default)g: 40 %% of an A100)"
    )


def _add_export(parts: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = parts.add_parser(
        "export",
        help="Write a run's averaged weights as a model folder.",
        description="Write a run's averaged weights, in bfloat16 and with a model card, as a part of a model folder.",
        allow_abbrev=False,
    )
    parser.set_defaults(module=_MODULE, act=_export)
    parser.add_argument("run_folder", type=Path, metavar="RUN_DIR")
    parser.add_argument(
        "out",
        type=Path,
        metavar="OUT_DIR",
        help="for example weights/mini/vae; of a transformer weights/mini; of a distillation weights/mini/fast",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="what the run was trained on")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="decoded data (default: DATA.cache beside --data)")
    parser.add_argument("--whole", action="store_true", help="of a student: write a whole model folder")
    parser.add_argument("--vae", type=Path, metavar="DIR", help="for --whole (default: the shipped one)")
