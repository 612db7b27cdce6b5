import pytest
import torch

from services.generator.sink_cache import SinkCache, sink_key
from visavis.models.id_context import Sink
from visavis.v1 import tensor_pb2


def sink(value: float) -> Sink:
    return Sink(torch.full((1, 1, 1), value), torch.full((1, 1, 1), value))


def latent(data: bytes, shape: tuple[int, ...] = (4,)) -> tensor_pb2.Tensor:
    return tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=shape, data=data)


def never() -> Sink:
    raise AssertionError("computed again")


def test_a_sink_is_computed_once() -> None:
    cache = SinkCache(2)
    key = sink_key("anna", latent(b"abcd"))
    first = cache.get(key, lambda: sink(1))
    assert cache.get(key, never) is first


def test_the_one_unused_for_longest_goes_first() -> None:
    cache = SinkCache(2)
    anna, ben, cara = (sink_key(name, latent(b"abcd")) for name in ("anna", "ben", "cara"))
    cache.get(anna, lambda: sink(1))
    cache.get(ben, lambda: sink(2))
    cache.get(anna, never)
    cache.get(cara, lambda: sink(3))
    assert len(cache) == 2
    cache.get(anna, never)
    cache.get(cara, never)
    with pytest.raises(AssertionError, match="computed again"):
        cache.get(ben, never)


def test_avatar_latent_and_its_layout_tell_keys_apart() -> None:
    keys = {
        sink_key("anna", latent(b"abcd")),
        sink_key("ben", latent(b"abcd")),
        sink_key("anna", latent(b"abce")),
        sink_key("anna", latent(b"abcd", (2, 2))),
    }
    assert len(keys) == 4


def test_a_sink_that_cannot_be_computed_is_not_kept() -> None:
    cache = SinkCache(1)
    key = sink_key("anna", latent(b"abcd"))
    with pytest.raises(AssertionError, match="computed again"):
        cache.get(key, never)
    assert len(cache) == 0


def test_no_room_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one"):
        SinkCache(0)
