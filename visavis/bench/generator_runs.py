"""Carries the measurements of `visavis bench generator` out: presets, modes, numbers of sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from visavis.bench.device_rates import copied_bytes_per_second, finish, matrix_operations_per_second
from visavis.bench.diffusers_generator import DiffusersGenerator
from visavis.bench.generator_chunks import DecodingBatch, SessionBatch
from visavis.bench.generator_result import Mode, ModeFigures, Precision, SessionsFigures
from visavis.bench.generator_work import Rates, TransformerSize, ValueBytes, chunk_passes, chunk_seconds
from visavis.bench.turns import time_in_turns
from visavis.models import checkpoints
from visavis.models.a2v_dit import A2VTransformer
from visavis.models.execution import COMPILED, Execution
from visavis.models.fast_preset import fast_settings
from visavis.models.generation import SamplingPlan, SamplingSettings, prepare_sampling
from visavis.models.presets import Preset
from visavis.models.step_runner import NOT_COMPILED, step_runner
from visavis.models.video_autoencoder import VideoAutoencoder

_BYTES: dict[Precision, ValueBytes] = {
    "float32": ValueBytes(4, 4),
    "bfloat16": ValueBytes(2, 2),
    "int8": ValueBytes(1, 4),
    "fp8": ValueBytes(1, 2),
}


@dataclass(frozen=True, slots=True)
class Conditions:
    """What all measurements of a run have in common.

    compared: numbers of sessions at which the comparisons run. blocks: so many transformer blocks instead of the
    preset's. seconds: that each figure is measured for, at least.
    """

    device: torch.device
    precision: Precision
    execution: Execution
    rates: Rates
    sessions: tuple[int, ...]
    compared: tuple[int, ...]
    modes: tuple[Mode, ...]
    blocks: int | None
    decode: bool
    seconds: float

    @property
    def dtype(self) -> torch.dtype:
        """Of tensors."""
        return torch.bfloat16 if _unrounded(self.precision, self.device) == "bfloat16" else torch.float32


def measured_rates(device: torch.device, precision: Precision) -> Rates:
    """What the device gives just now."""
    operations, others = matrix_operations_per_second(device, precision), _unrounded(precision, device)
    return Rates(
        linear_operations=operations,
        # Only weights are in 8 bits; what is multiplied with each other is not.
        other_operations=operations if others == precision else matrix_operations_per_second(device, others),
        moved_bytes=copied_bytes_per_second(device),
    )


def _unrounded(precision: Precision, device: torch.device) -> Precision:
    """In what all but the products of large weights is computed."""
    if precision == "int8":
        return "float32"
    if precision == "fp8":
        return "bfloat16" if device.type == "cuda" else "float32"
    return precision


def mode_settings(sampling: SamplingSettings, mode: Mode) -> SamplingSettings:
    """The fast mode is that of the fast preset."""
    return sampling if mode == "parity" else fast_settings(sampling)


def measure_preset(model: str, where: Conditions, say: Callable[[str], None]) -> list[ModeFigures]:
    """All modes of a preset or model folder. Raises ValueError for a model, or a way to run it, that there is not."""
    preset, folder = checkpoints.read_settings(model)
    say(f"{preset.name}: loading")
    transformer = _load(preset, folder, where)
    modes = {mode: mode_settings(preset.sampling, mode) for mode in where.modes}
    rows = {settings.branches * count for settings in modes.values() for count in (1, *where.sessions)}
    runner = step_runner(transformer, where.execution, rows)
    size = TransformerSize.of(transformer.config, preset.latent_rows)
    generator = DiffusersGenerator(size, where.device, where.dtype) if where.compared else None
    vae = _vae(model, where) if where.decode else None
    random_weights = where.blocks is not None or checkpoints.has_random_weights(preset, folder)
    figures = []
    # Weights know their versions, so they are loaded before this.
    with torch.inference_mode():
        for mode, settings in modes.items():
            plan = prepare_sampling(transformer, settings, preset.latent_rows, preset.latent_rows, runner=runner)
            # Here blocks are compiled and graphs captured.
            SessionBatch(plan, 1).batched()
            sessions = []
            for count in where.sessions:
                say(f"{preset.name}, {mode}, {count} session(s)")
                sessions.append(_measure_sessions(plan, size, count, where, generator, vae))
            measured = ModeFigures(
                preset=preset.name,
                mode=mode,
                picture_size=preset.picture_size,
                blocks=size.blocks,
                preset_blocks=preset.transformer["num_layers"],
                steps=settings.steps,
                branches=settings.branches,
                random_weights=random_weights,
                plain_error=SessionBatch(plan, 1).plain_error() if where.compared else None,
                sessions=tuple(sessions),
            )
            figures.append(measured)
    return figures


def _measure_sessions(
    plan: SamplingPlan,
    size: TransformerSize,
    count: int,
    where: Conditions,
    generator: DiffusersGenerator | None,
    vae: VideoAutoencoder | None,
) -> SessionsFigures:
    if where.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(where.device)
    batch = SessionBatch(plan, count)
    jobs: dict[str, Callable[[], object]] = {"chunk": batch.batched}
    if count > 1:
        jobs["one by one"] = batch.one_by_one
    with _beside() as beside:
        if vae is not None:
            decoding = batch.decoding(vae)
            jobs["decode"] = decoding.decode
            jobs["beside"] = lambda: beside(decoding, batch, where.device)
        found = time_in_turns(_finished(jobs, where.device), where.seconds)
    memory_bytes = _memory_bytes(where.device)
    if count in where.compared and generator is not None:
        # In turns with the chunk again: the comparison wants both from the same minutes.
        others: dict[str, Callable[[], object]] = {
            "chunk": batch.batched,
            "plain": batch.plain,
            "diffusers": lambda: batch.diffusers(generator),
        }
        found |= time_in_turns(_finished(others, where.device), where.seconds)
    passes = chunk_passes(
        size,
        sessions=count,
        branches=plan.settings.branches,
        steps=plan.settings.steps,
        clean_pass=plan.settings.cache_source == "clean",
        value_bytes=_BYTES[where.precision],
    )
    return SessionsFigures(
        sessions=count,
        chunk_seconds=found["chunk"],
        bound_seconds=chunk_seconds(passes, where.rates),
        operations=sum(work.operations for work in passes),
        moved_bytes=sum(work.moved_bytes for work in passes),
        memory_bytes=memory_bytes,
        one_by_one_seconds=found.get("one by one"),
        plain_seconds=found.get("plain"),
        diffusers_seconds=found.get("diffusers"),
        decode_seconds=found.get("decode"),
        beside_seconds=found.get("beside"),
    )


def _load(preset: Preset, folder: Path | None, where: Conditions) -> A2VTransformer:
    compiled = where.execution in COMPILED
    if compiled and where.precision in ("int8", "fp8"):
        raise ValueError(NOT_COMPILED)
    if where.blocks is None:
        transformer = checkpoints.load_transformer(preset, folder, where.dtype)
    else:
        arguments, kind = {**preset.transformer, "num_layers": where.blocks}, A2VTransformer
        transformer = checkpoints.seeded(kind, arguments, "transformer", where.dtype)
    checkpoints.placed(transformer, where.device, where.dtype).eval().requires_grad_(False)
    # torch.compile takes no weights that are packed for a CPU; as they are, they are measured.
    if where.device.type != "cpu" or not compiled:
        checkpoints.fuse(transformer, preset, where.precision)
    return transformer


def _vae(model: str, where: Conditions) -> VideoAutoencoder:
    module = checkpoints.load_part(model, "vae", where.device.type, where.precision).module
    assert isinstance(module, VideoAutoencoder)
    return module


def _finished(jobs: dict[str, Callable[[], object]], device: torch.device) -> dict[str, Callable[[], object]]:
    def whole(job: Callable[[], object]) -> Callable[[], object]:
        def run() -> None:
            job()
            finish(device)

        return run

    return {name: whole(job) for name, job in jobs.items()}


@contextmanager
def _beside() -> Iterator[Callable[[DecodingBatch, SessionBatch, torch.device], None]]:
    """Decoding in a thread of one core (or on a CUDA stream) of its own, while chunks are generated."""
    with ThreadPoolExecutor(1, "decode", initializer=torch.set_num_threads, initargs=(1,)) as pool:

        def decode(decoding: DecodingBatch, device: torch.device) -> None:
            with torch.inference_mode():
                if device.type != "cuda":
                    decoding.decode()
                    return
                stream = torch.cuda.Stream(device)
                with torch.cuda.stream(stream):
                    decoding.decode()
                stream.synchronize()

        def both(decoding: DecodingBatch, batch: SessionBatch, device: torch.device) -> None:
            decoded = pool.submit(decode, decoding, device)
            batch.batched()
            decoded.result()

        yield both


def _memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        # What graphs compute in is reserved for them, but not allocated between their captures.
        return torch.cuda.max_memory_reserved(device)
    return psutil.Process().memory_info().rss
