"""Checks what a session asks of the generator."""

from __future__ import annotations

from typing import Final

from visavis.runtime.errors import InvalidInput, ModelMismatch
from visavis.runtime.settings import split_address
from visavis.v1 import generator_pb2

_SAMPLING_PRESETS: Final = (
    generator_pb2.SAMPLING_PRESET_UNSPECIFIED,
    generator_pb2.SAMPLING_PRESET_STANDARD,
    generator_pb2.SAMPLING_PRESET_FAST,
)
# By the first word of `ModelIdentity.sampling`.
_PRESET_OF: Final = {
    "standard": generator_pb2.SAMPLING_PRESET_STANDARD,
    "fast": generator_pb2.SAMPLING_PRESET_FAST,
}


def check_config(config: generator_pb2.GenerateConfig) -> None:
    """Checks what needs no model to judge; the session id is the stage handler's part.

    Raises:
        InvalidInput: naming the field.
    """
    if not config.avatar_id:
        raise InvalidInput("avatar_id is empty", "config.avatar_id")
    if not config.HasField("portrait_latent"):
        raise InvalidInput("portrait_latent is missing", "config.portrait_latent")
    if config.resume.HasField("peer"):
        try:
            split_address(config.resume.peer.address)
        except ValueError as error:
            raise InvalidInput(str(error), "config.resume.peer.address") from error
    if config.sampling not in _SAMPLING_PRESETS:
        raise InvalidInput(f"there is no sampling preset {config.sampling}", "config.sampling")


def check_sampling(config: generator_pb2.GenerateConfig, sampling: str) -> None:
    """Checks that a generator which samples so (`ModelIdentity.sampling`) may serve the session.

    Raises:
        ModelMismatch: it asks for the other preset, or was begun with that or with another adapter.
    """
    preset = _PRESET_OF[sampling.partition(":")[0]]
    if config.sampling not in (generator_pb2.SAMPLING_PRESET_UNSPECIFIED, preset):
        raise ModelMismatch(f"this generator samples {sampling}; the session asks for another preset")
    if config.pinned_sampling not in ("", sampling):
        raise ModelMismatch(f"this generator samples {sampling}; the session is sampled {config.pinned_sampling}")
