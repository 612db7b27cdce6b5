"""The same models called one after the other in one process: `python -m visavis.bench.in_process`. Prints JSON.

What is left when the services are taken away; `pipeline_result.Overhead` compares.
"""

import argparse
import dataclasses
import io
import json
import sys
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from visavis.bench.bundled import bundled_portrait, speech_of
from visavis.bench.percentiles import Percentiles
from visavis.bench.pipeline_result import InProcessFigures, ModelRun
from visavis.contract import CHUNK_SECONDS, SAMPLE_RATE_HZ
from visavis.openmp import wait_asleep


def measure(preset: str, speech_seconds: float, run: ModelRun) -> InProcessFigures:
    """Renders the bundled sentence chunk by chunk; the first chunk warms up and does not count.

    Raises ValueError for a model, or a way to run it, that there is not.
    """
    wait_asleep()
    import torch

    from visavis.bench.device_rates import matrix_operations_per_second, precision_of
    from visavis.models.checkpoints import resolve_device
    from visavis.models.pipeline import RestPipeline

    device = resolve_device(run.device)
    precision = precision_of(run.dtype, device)
    pipeline = RestPipeline.from_preset(preset, run.device, run.dtype, run.sampling)
    portrait = Image.open(io.BytesIO(bundled_portrait())).convert("RGB")
    seconds: list[float] = []
    cpu_seconds: list[float] = []
    begin, cpu_begin = time.perf_counter(), time.process_time()
    for _ in pipeline.stream(portrait, [at_model_rate(speech_seconds)], seed=0):
        now, cpu_now = time.perf_counter(), time.process_time()
        seconds.append(now - begin)
        cpu_seconds.append(cpu_now - cpu_begin)
        begin, cpu_begin = now, cpu_now
    counted = Percentiles.of(seconds[1:])
    return InProcessFigures(
        run=run,
        precision=precision,
        real_time_factor=counted.mean / CHUNK_SECONDS,
        chunk_seconds=counted,
        cpu_seconds_per_chunk=Percentiles.of(cpu_seconds[1:]).mean,
        threads=torch.get_num_threads(),
        matrix_operations_per_second=matrix_operations_per_second(device, precision),
    )


def at_model_rate(speech_seconds: float) -> npt.NDArray[np.float32]:
    """16 kHz mono, resampled linearly: here only the time counts."""
    speech = speech_of(speech_seconds)
    wave = speech.samples_SC.mean(axis=1) / 32768
    positions = np.arange(round(speech_seconds * SAMPLE_RATE_HZ)) * speech.sample_rate_hz / SAMPLE_RATE_HZ
    samples: npt.NDArray[np.float32] = np.interp(positions, np.arange(len(wave)), wave).astype(np.float32)
    return samples


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m visavis.bench.in_process", description=__doc__)
    parser.add_argument("--preset", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--sampling", default="standard")
    options = parser.parse_args(arguments)
    run = ModelRun(options.device, options.dtype, options.sampling, execution="eager")
    print(json.dumps(dataclasses.asdict(measure(options.preset, options.seconds, run))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
