"""How a forward pass is carried out: as it stands, with compiled blocks, or as a CUDA graph; the model is the same.

A `StepRunner` takes the arguments of a pass; who denoises (`visavis.models.generation`) does not know which one it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, Protocol

import torch

from visavis.models.a2v_dit import A2VTransformer
from visavis.models.execution import COMPILED, Execution
from visavis.models.forward_pass import ForwardPass
from visavis.models.packed_linear import PackedLinear
from visavis.models.row_threads import RowThreads, row_threads

# Why weights that are packed or rounded do not run, and what to do.
NOT_COMPILED: Final = (
    "compiled blocks take no weights in 8 bits (dtype int8 or fp8), nor float32 packed for a CPU; set the execution to "
    "eager, or on a GPU to graphed, or the dtype to bfloat16"
)


class StepRunner(Protocol):
    """Carries out forward passes of one transformer."""

    def velocities(self, forward_pass: ForwardPass) -> torch.Tensor:
        """The velocity of every row, shaped as the latents. To be read before the next pass begins."""
        ...

    def remember(self, forward_pass: ForwardPass) -> None:
        """The pass for the sake of the memory alone."""
        ...


class EagerRunner:
    """Calls the transformer; with `threads` on a CPU, each core for rows of its own."""

    def __init__(self, transformer: A2VTransformer, threads: RowThreads | None) -> None:
        self._transformer = transformer
        self._threads = threads

    def velocities(self, forward_pass: ForwardPass) -> torch.Tensor:
        """Implements `StepRunner`."""
        if self._threads is None:
            return forward_pass.velocities(self._transformer)
        return torch.cat(self._side_by_side(ForwardPass.velocities, forward_pass, self._threads))

    def remember(self, forward_pass: ForwardPass) -> None:
        """Implements `StepRunner`."""
        if self._threads is None:
            forward_pass.remember(self._transformer)
        else:
            self._side_by_side(ForwardPass.remember, forward_pass, self._threads)

    def _side_by_side(
        self, run: Callable[[ForwardPass, A2VTransformer], Any], forward_pass: ForwardPass, threads: RowThreads
    ) -> list[Any]:
        shares = threads.split(len(forward_pass.latents_RTHWC))
        return threads.run([partial(run, forward_pass.part(rows), self._transformer) for rows in shares])


def eager_runner(transformer: A2VTransformer) -> EagerRunner:
    """On a CPU with as many cores as torch is set to use now."""
    on_cpu, cores = transformer.proj_in.weight.device.type == "cpu", torch.get_num_threads()
    return EagerRunner(transformer, row_threads(cores) if on_cpu and cores > 1 else None)


def step_runner(transformer: A2VTransformer, execution: Execution, graphed_rows: Iterable[int]) -> StepRunner:
    """The runner for a way of execution. `graphed_rows`: the numbers of rows that graphs are made for, where any are.

    `compiled` changes the transformer (`compile_blocks`). Raises `ValueError` for graphs without CUDA, and for blocks
    that cannot be compiled, saying what to do.
    """
    if execution in COMPILED:
        compile_blocks(transformer)
    runner = eager_runner(transformer)
    if execution in ("eager", "compiled"):
        return runner
    if transformer.proj_in.weight.device.type != "cuda":
        raise ValueError(f"the execution {execution} needs a CUDA device; on a CPU use eager or compiled")
    from visavis.models.graphed_runner import CudaCapture, GraphedRunner

    return GraphedRunner(runner, graphed_rows, CudaCapture())


def compile_blocks(transformer: A2VTransformer, backend: str | Callable[..., Any] = "inductor") -> None:
    """Compiles what a block does before and after its attention, once for all blocks (torch.compile).

    After the weights are loaded, placed and fused: they must not change any more. Raises `ValueError` for blocks whose
    weights are packed for oneDNN or rounded to 8 bits, which torch.compile cannot take.
    """
    if any(isinstance(module, PackedLinear) for module in transformer.modules()):
        raise ValueError(NOT_COMPILED)
    for block in transformer.blocks:
        # From the second batch size on, torch takes the rows as a variable.
        block.before_attention = torch.compile(block.before_attention, backend=backend)  # type: ignore[method-assign]
        block.after_attention = torch.compile(block.after_attention, backend=backend)  # type: ignore[method-assign]
