"""Which generators may serve a session, by their way of sampling (`ModelIdentity.sampling`); pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from visavis.runtime.errors import InvalidInput
from visavis.runtime.registry import StageInstance
from visavis.v1 import generator_pb2
from visavis.v1.generator_pb2 import SamplingPreset

STANDARD: Final = "standard"
_FAST: Final = "fast"
_PRESETS: Final = (
    generator_pb2.SAMPLING_PRESET_UNSPECIFIED,
    generator_pb2.SAMPLING_PRESET_STANDARD,
    generator_pb2.SAMPLING_PRESET_FAST,
)


@dataclass(frozen=True, slots=True)
class SamplingWish:
    """What a session asks for."""

    preset: SamplingPreset.ValueType
    pinned: str
    """How a session that goes on was sampled so far: two adapters never serve one session. Empty for a new one."""

    def allows(self, generator: StageInstance) -> bool:
        """Whether it may serve the session."""
        sampling = sampling_of(generator)
        if self.pinned:
            return sampling == self.pinned
        return self.preset in (generator_pb2.SAMPLING_PRESET_UNSPECIFIED, preset_of(sampling))


ANY_SAMPLING: Final = SamplingWish(generator_pb2.SAMPLING_PRESET_UNSPECIFIED, "")


def sampling_of(generator: StageInstance) -> str:
    """Its way of sampling; one that says nothing is of before there was another."""
    return generator.sampling or STANDARD


def preset_of(sampling: str) -> SamplingPreset.ValueType:
    """What clients call a way of sampling: the word before an adapter's hash."""
    fast = sampling.partition(":")[0] == _FAST
    return generator_pb2.SAMPLING_PRESET_FAST if fast else generator_pb2.SAMPLING_PRESET_STANDARD


def served_presets(generators: Iterable[StageInstance]) -> list[SamplingPreset.ValueType]:
    """What clients may ask for where these serve."""
    return sorted({preset_of(sampling_of(generator)) for generator in generators})


def check_sampling(preset: SamplingPreset.ValueType) -> None:
    """Errors: `InvalidInput` for a preset that the contract does not have."""
    if preset not in _PRESETS:
        raise InvalidInput("config.sampling is unknown; use STANDARD or FAST", "config.sampling")
