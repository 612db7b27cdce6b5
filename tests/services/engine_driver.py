"""Drives an engine as the worker does, in this process."""

from __future__ import annotations

import time
from typing import TypeVar

import numpy as np
from google.protobuf.message import Message

from visavis.runtime.engine import Engine, SessionOutput
from visavis.tensors import tensor_from_numpy
from visavis.v1 import chunk_pb2, tensor_pb2

Kind = TypeVar("Kind", bound=Message)


def run_dry(engine: Engine, limit_seconds: float = 60.0) -> list[SessionOutput]:
    """Steps until nothing is left to do."""
    outputs: list[SessionOutput] = []
    deadline = time.monotonic() + limit_seconds
    while engine.has_work():
        assert time.monotonic() < deadline, "the engine never comes to rest"
        outputs += engine.step()
    return outputs


def outputs_of(outputs: list[SessionOutput], session_id: str, kind: type[Kind]) -> list[Kind]:
    """The messages of one session, all of which must be of `kind`."""
    found = []
    for owner, output in outputs:
        if owner == session_id:
            assert isinstance(output, kind), output
            found.append(output)
    return found


def header(index: int, *, epoch: int = 1, seconds_left: float = 0.5) -> chunk_pb2.ChunkHeader:
    made = chunk_pb2.ChunkHeader(epoch=epoch, utterance_id=1, chunk_index=index)
    made.time_to_deadline.FromNanoseconds(round(seconds_left * 1e9))
    return made


def random_tensor(seed: int, shape: tuple[int, ...]) -> tensor_pb2.Tensor:
    return tensor_from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))
