"""`visavis bench generator`: chunk times of the transformer against the plain way, diffusers, and what is possible."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rich.console import Console

from visavis.bench.json_file import write_json
from visavis.bench.surroundings import surroundings
from visavis.cli.errors import CommandError
from visavis.openmp import wait_asleep

if TYPE_CHECKING:
    from visavis.bench.generator_result import GeneratorResult


def run(options: argparse.Namespace) -> int:
    """Measures, prints and writes."""
    if not 0 <= options.seconds <= 600:
        raise CommandError(f"--seconds is between 0 and 600, not {options.seconds:g}")
    if min(options.sessions, default=0) < 1 or max(options.sessions) > 1024:
        raise CommandError("--sessions are between 1 and 1024")
    if options.blocks is not None and options.blocks < 1:
        raise CommandError(f"--blocks is at least 1, not {options.blocks}")
    # Before torch is imported.
    wait_asleep()
    from visavis.bench.generator_report import print_result, write_result

    console = Console()
    result = measure(options, console)
    print_result(result, console)
    if options.json:
        write_json(result, options.json)
        console.print(f"wrote {options.json}")
    if not options.no_result:
        for path in write_result(result, options.results):
            console.print(f"wrote {path}")
    return 0


def measure(options: argparse.Namespace, console: Console) -> GeneratorResult:
    """Everything, one preset after the other. Raises CommandError for what this machine has not."""
    import torch

    from visavis.bench.device_rates import precision_of
    from visavis.bench.generator_result import SCHEMA, GeneratorResult
    from visavis.bench.generator_runs import Conditions, measure_preset, measured_rates
    from visavis.models.checkpoints import resolve_device

    try:
        device = resolve_device(options.device)
        precision = precision_of(options.dtype, device)
        with console.status("how fast the device is") as status:
            where = Conditions(
                device=device,
                precision=precision,
                execution=options.execution,
                rates=measured_rates(device, precision),
                sessions=tuple(options.sessions),
                compared=tuple(options.compare),
                modes=tuple(options.modes),
                blocks=options.blocks,
                decode=options.decode,
                seconds=options.seconds,
            )
            models = options.preset or (["mini", "base"] if device.type == "cuda" else ["mini"])
            found = [figures for model in models for figures in measure_preset(model, where, status.update)]
    except ValueError as error:
        raise CommandError(str(error)) from error
    return GeneratorResult(
        schema=SCHEMA,
        surroundings=surroundings(),
        gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        threads=torch.get_num_threads(),
        execution=options.execution,
        precision=precision,
        rates=where.rates,
        seconds=options.seconds,
        modes=tuple(found),
    )
