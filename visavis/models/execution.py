"""In which ways and in what numbers a forward pass can be carried out; no torch, so that commands know them too."""

from typing import Final, Literal, get_args

# By `visavis.models.step_runner`. graphed: CUDA graphs of the eager operations; compiled-graphed: of compiled blocks.
Execution = Literal["eager", "compiled", "graphed", "compiled-graphed"]
EXECUTIONS: Final[tuple[Execution, ...]] = get_args(Execution)
# Those with compiled blocks.
COMPILED: Final[tuple[Execution, ...]] = ("compiled", "compiled-graphed")

# What an operator can ask for (`visavis.models.checkpoints.resolve_dtype`).
DTYPES: Final = ("auto", "float32", "bfloat16", "int8", "fp8")
