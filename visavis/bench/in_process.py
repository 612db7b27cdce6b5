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
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from visavis.bench.bundled import bundled_portrait, speech_of
from visavis.bench.percentiles import Percentiles
from visavis.bench.pipeline_result import InProcessFigures
from visavis.contract import CHUNK_SECONDS, SAMPLE_RATE_HZ
from visavis.openmp import wait_asleep

if TYPE_CHECKING:
    import torch


def measure(preset: str, speech_seconds: float) -> InProcessFigures:
    """Renders the bundled sentence chunk by chunk; the first chunk warms up and does not count."""
    wait_asleep()
    import torch

    from visavis.models.pipeline import RestPipeline

    pipeline = RestPipeline.from_preset(preset)
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
        real_time_factor=counted.mean / CHUNK_SECONDS,
        chunk_seconds=counted,
        cpu_seconds_per_chunk=Percentiles.of(cpu_seconds[1:]).mean,
        threads=torch.get_num_threads(),
        matrix_operations_per_second=_matrix_rate(pipeline.transformer.dtype),
    )


def _matrix_rate(dtype: "torch.dtype") -> float:
    """Operations per second of a large matrix product, the median of several: what this machine gives just now."""
    import torch

    size = 2048
    left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(12):
        begin = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - begin)
    return 2 * size**3 / Percentiles.of(seconds[2:]).p50


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
    options = parser.parse_args(arguments)
    print(json.dumps(dataclasses.asdict(measure(options.preset, options.seconds))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
