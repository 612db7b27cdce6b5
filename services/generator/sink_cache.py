"""Sinks of the avatars seen last: computed once per avatar, shared by all its sessions (paper section 3.2)."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from visavis.models.id_context import Sink
from visavis.v1 import tensor_pb2


@dataclass(frozen=True, slots=True)
class SinkKey:
    """An avatar and the exact latent its sink was computed from; a re-registered portrait is another key."""

    avatar_id: str
    latent_sha256: bytes


def sink_key(avatar_id: str, portrait_latent: tensor_pb2.Tensor) -> SinkKey:
    """Returns the key of an avatar's latent; data type and shape count too."""
    digest = hashlib.sha256(f"{portrait_latent.data_type} {list(portrait_latent.shape)} ".encode())
    digest.update(portrait_latent.data)
    return SinkKey(avatar_id, digest.digest())


class SinkCache:
    """Keeps the `capacity` sinks used last. Running sessions hold their own reference, so dropping one is safe."""

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"the cache needs room for at least one sink, not {capacity}")
        self._capacity = capacity
        self._sinks: OrderedDict[SinkKey, Sink] = OrderedDict()

    def get(self, key: SinkKey, compute: Callable[[], Sink]) -> Sink:
        """Returns the sink of `key`, computing it where it is missing and dropping the one unused for longest."""
        if key not in self._sinks:
            self._sinks[key] = compute()
        self._sinks.move_to_end(key)
        while len(self._sinks) > self._capacity:
            self._sinks.popitem(last=False)
        return self._sinks[key]

    @property
    def byte_count(self) -> int:
        """Memory of the keys and values."""
        return sum(sink.keys_LND.nbytes + sink.values_LND.nbytes for sink in self._sinks.values())

    def __len__(self) -> int:
        return len(self._sinks)
