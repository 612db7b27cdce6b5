"""Typed reading of what stands in Redis as JSON, whoever wrote it and whatever became of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

# Far beyond what a session reaches, and every number stays within the 64 bits of a message.
LARGEST: Final = 2**56


class StoredFields:
    """The fields of a JSON object. Every method raises `ValueError` for a value that cannot be.

    A field that is not there has its default: a gateway of another version may not know it.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields

    @classmethod
    def parse(cls, data: bytes) -> StoredFields:
        """Errors: `ValueError` for bytes that are no JSON object."""
        try:
            found = json.loads(data)
        except RecursionError:
            raise ValueError("JSON that is nested without end") from None
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
        return cls(found)

    def integer(self, name: str, default: int | None = None, *, minimum: int = 0) -> int:
        """A whole number from `minimum` on."""
        return _integer(self._given(name, default), name, minimum)

    def seconds(self, name: str, default: float) -> float:
        """A point in time or a duration."""
        value = self._given(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name} is no number of seconds")
        return float(value)

    def text(self, name: str, default: str) -> str:
        """A string."""
        value = self._given(name, default)
        if not isinstance(value, str):
            raise ValueError(f"{name} is no text")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self._given(name, default)
        if not isinstance(value, bool):
            raise ValueError(f"{name} is neither true nor false")
        return value

    def integers(self, name: str) -> dict[str, int]:
        """Whole numbers by name."""
        return {key: _integer(value, name, 0) for key, value in self._table(name).items()}

    def pair(self, name: str) -> tuple[int, int]:
        """Two whole numbers."""
        return _pair(self._given(name, None), name)

    def pairs(self, name: str) -> dict[int, tuple[int, int]]:
        """Two whole numbers each, by a number above 0."""
        return {_integer(int(key), name, 1): _pair(value, name) for key, value in self._table(name).items()}

    def _table(self, name: str) -> dict[str, Any]:
        value = self._given(name, {})
        if not isinstance(value, dict):
            raise ValueError(f"{name} is no object")
        return value

    def _given(self, name: str, default: Any) -> Any:
        value = self._fields.get(name, default)
        if value is None:
            raise ValueError(f"{name} is missing")
        return value


def _integer(value: Any, name: str, minimum: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= LARGEST:
        raise ValueError(f"{name} is no whole number from {minimum} on")
    return value


def _pair(value: Any, name: str) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"{name} is no pair")
    return _integer(value[0], name, 0), _integer(value[1], name, 0)
