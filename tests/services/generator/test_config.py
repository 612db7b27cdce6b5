from collections.abc import Callable

import pytest

from services.generator.config import check_config
from visavis.runtime.errors import InvalidInput
from visavis.v1 import generator_pb2, tensor_pb2


def good_config() -> generator_pb2.GenerateConfig:
    return generator_pb2.GenerateConfig(
        session_id="a", avatar_id="anna", portrait_latent=tensor_pb2.Tensor(shape=[1]), seed=2**64 - 1
    )


@pytest.mark.parametrize(
    "sampling",
    [
        generator_pb2.SAMPLING_PRESET_UNSPECIFIED,
        generator_pb2.SAMPLING_PRESET_STANDARD,
        generator_pb2.SAMPLING_PRESET_FAST,
    ],
)
def test_what_the_contract_allows_passes(sampling: generator_pb2.SamplingPreset.ValueType) -> None:
    config = good_config()
    config.sampling = sampling
    check_config(config)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda c: c.ClearField("avatar_id"), "config.avatar_id"),
        (lambda c: c.ClearField("portrait_latent"), "config.portrait_latent"),
        (lambda c: setattr(c, "sampling", 9), "config.sampling"),
        (lambda c: setattr(c.resume.peer, "address", "nowhere"), "config.resume.peer.address"),
        (lambda c: setattr(c.resume.peer, "fencing_token", 3), "config.resume.peer.address"),
    ],
)
def test_what_it_does_not_allow_is_refused_by_name(
    change: Callable[[generator_pb2.GenerateConfig], None], field: str
) -> None:
    config = good_config()
    change(config)
    with pytest.raises(InvalidInput) as caught:
        check_config(config)
    assert caught.value.field == field
