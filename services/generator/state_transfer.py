"""A session's state on its way between two generators, exact to the bit, in messages under 1 MiB.

Only what belongs to the session alone travels: its context. The sink is computed from the portrait, where it is not
there already.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final

import torch

from visavis.models.id_context import Context
from visavis.models.tensors import tensor_to_message
from visavis.runtime.errors import InvalidInput
from visavis.v1 import chunk_pb2, generator_pb2, tensor_pb2

PART_BYTES: Final = 1000 * 1024
KEYS: Final = "context.keys"
VALUES: Final = "context.values"


def leaving_state(
    model: chunk_pb2.ModelIdentity, border: chunk_pb2.ChunkBorder, seed: int, context: Context | None
) -> Iterator[generator_pb2.TransferSessionResponse]:
    """The messages of a state, in order: `state`, then the parts of its tensors, where it has any."""
    tensors = {} if context is None else {KEYS: context.keys_LRND, VALUES: context.values_LRND}
    parts = sum(-(-tensor.nbytes // PART_BYTES) for tensor in tensors.values())
    state = generator_pb2.TransferredState(model=model, border=border, seed=seed, parts=parts)
    yield generator_pb2.TransferSessionResponse(state=state)
    for part in chain.from_iterable(_parts(name, tensor) for name, tensor in tensors.items()):
        yield generator_pb2.TransferSessionResponse(part=part)


def _parts(name: str, tensor: torch.Tensor) -> Iterator[generator_pb2.StatePart]:
    header = _header(tensor)
    data = tensor.contiguous().cpu().reshape(-1).view(torch.uint8).numpy()
    for offset in range(0, data.size, PART_BYTES):
        piece = data[offset : offset + PART_BYTES].tobytes()
        yield generator_pb2.StatePart(name=name, tensor=header, offset=offset, data=piece)


def _header(tensor: torch.Tensor) -> tensor_pb2.Tensor:
    data_type = tensor_to_message(tensor.new_empty(0)).data_type
    return tensor_pb2.Tensor(data_type=data_type, shape=tensor.shape)


@dataclass(slots=True)
class _Filling:
    tensor: torch.Tensor
    header: tensor_pb2.Tensor
    filled_bytes: int = 0


class ArrivingState:
    """Puts a state together from its parts, which come in order, tensor by tensor."""

    def __init__(
        self, state: generator_pb2.TransferredState, context_shape: tuple[int, ...], data_type: torch.dtype
    ) -> None:
        """`context_shape`: of keys, and of values, `[L, R, N, D]` in this model; `data_type`: theirs."""
        self.state = state
        tensors = {name: torch.empty(context_shape, dtype=data_type) for name in (KEYS, VALUES) if state.parts}
        self._filling = {name: _Filling(tensor, _header(tensor)) for name, tensor in tensors.items()}

    def add(self, part: generator_pb2.StatePart) -> None:
        """Takes the next part; raises InvalidInput for another one than that."""
        filling = self._filling.get(part.name)
        if filling is None:
            raise InvalidInput(f"a state has no tensor {part.name!r}", "part.name")
        if part.tensor != filling.header:
            raise InvalidInput(f"{part.name} has another shape or type than this model's", "part.tensor")
        if part.offset != filling.filled_bytes or part.offset + len(part.data) > filling.tensor.nbytes:
            raise InvalidInput(f"{part.name} goes on at byte {filling.filled_bytes}, not {part.offset}", "part.offset")
        filled = filling.tensor.reshape(-1).view(torch.uint8)[part.offset : part.offset + len(part.data)]
        if part.data:
            filled.copy_(torch.frombuffer(bytearray(part.data), dtype=torch.uint8))
        filling.filled_bytes += len(part.data)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return all(filling.filled_bytes == filling.tensor.nbytes for filling in self._filling.values())

    def context(self, device: torch.device) -> Context | None:
        """The context, on `device`; only when complete."""
        assert self.complete
        if not self._filling:
            return None
        return Context(self._filling[KEYS].tensor.to(device), self._filling[VALUES].tensor.to(device))
