"""Errors of many tasks at once."""

from __future__ import annotations


def leaves(error: BaseException) -> list[BaseException]:
    """The errors of which a group consists, however deep; an error that is no group is its own only leaf."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for each in error.exceptions for leaf in leaves(each)]
