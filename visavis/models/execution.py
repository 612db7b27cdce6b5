"""The ways in which a forward pass can be carried out (`visavis.models.step_runner`)."""

from typing import Final, Literal, get_args

# graphed: CUDA graphs of the eager operations; compiled-graphed: of compiled blocks.
Execution = Literal["eager", "compiled", "graphed", "compiled-graphed"]
EXECUTIONS: Final[tuple[Execution, ...]] = get_args(Execution)
