"""Check the arguments of the condition factories."""

from __future__ import annotations

import operator
from typing import SupportsIndex

from pamiq_jax.errors import InvalidValueError

INT32_MAX = 2**31 - 1
"""Counters are int32 when a condition is traced, so its constants must fit too."""


def checked_integer(argument: str, value: SupportsIndex, least: int, most: int = INT32_MAX) -> int:
    """Return `value` as a Python int.

    Raises:
        InvalidValueError: if it is no integer, or not from `least` to `most`.

    Example:
        >>> checked_integer("min_size(minimum)", 5, least=1)
        5
    """
    expected = f"an integer from {least} to {most}"
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InvalidValueError(argument, value, expected)
    if not least <= (integer := operator.index(value)) <= most:
        raise InvalidValueError(argument, value, expected)
    return integer


def checked_number(argument: str, value: float, least: float, most: float) -> float:
    """Return `value` as it is.

    Raises:
        InvalidValueError: if it is not from `least` to `most`; NaN is not.

    Example:
        >>> checked_number("every_seconds(seconds)", 0.5, least=0.001, most=10)
        0.5
    """
    if isinstance(value, bool) or not least <= value <= most:
        raise InvalidValueError(argument, value, f"a number from {least} to {most}")
    return value


def short_number(value: float) -> str:
    """Return the shortest text that reads back as `value`.

    Example:
        >>> short_number(5.0), short_number(0.5)
        ('5', '0.5')
    """
    return str(int(value)) if value == int(value) else repr(float(value))
