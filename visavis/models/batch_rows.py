"""States of several sessions as rows of one batch, and apart again. Dimension 0 of every tensor is the batch."""

from collections.abc import Sequence

import torch
from torch import Tensor


def join_rows(columns: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Joins states, each a tuple of tensors, along the batch. `ValueError` when they do not fit together."""
    shapes = {tuple(tensor.shape[1:] for tensor in column) for column in columns}
    if len(shapes) != 1:
        raise ValueError("states of different models, sizes or ages cannot share a batch")
    return tuple(torch.cat(rows) for rows in zip(*columns, strict=True))


def split_rows(tensors: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    """One state for each batch row.

    Rows are copied: a view would keep the whole batch in memory as long as one of its sessions keeps its state. A batch
    of one row is returned as it is.
    """
    batch_size = tensors[0].shape[0]
    if batch_size == 1:
        return [tensors]
    return [tuple(tensor[row : row + 1].clone() for tensor in tensors) for row in range(batch_size)]
