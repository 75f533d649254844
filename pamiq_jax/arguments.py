"""Check numbers that users give."""

from __future__ import annotations

import operator
from typing import SupportsIndex

from pamiq_jax.errors import InvalidValueError

INT32_MAX = 2**31 - 1
"""Counters are int32 when a condition is traced, so its constants must fit too."""


def checked_integer(argument: str, value: SupportsIndex, least: int, most: int = INT32_MAX) -> int:
    """Return `value` as a Python int, or raise InvalidValueError unless it is one from `least` to `most`."""
    integer = None if isinstance(value, bool) or not hasattr(value, "__index__") else operator.index(value)
    if integer is None or not least <= integer <= most:
        raise InvalidValueError(argument, value, f"an integer from {least} to {most}")
    return integer


def checked_number(argument: str, value: float, least: float, most: float) -> float:
    """Return `value`, or raise InvalidValueError unless it is from `least` to `most`; NaN is not."""
    if isinstance(value, bool) or not least <= value <= most:
        raise InvalidValueError(argument, value, f"a number from {least} to {most}")
    return value


def checked_milliseconds(argument: str, seconds: float) -> int:
    """Return `seconds` in milliseconds, or raise InvalidValueError unless it is from one of them to 24 days."""
    return round(checked_number(argument, seconds, least=0.001, most=INT32_MAX // 1000) * 1000)


def short_number(value: float) -> str:
    """Return the shortest text that reads back as `value`."""
    return str(int(value)) if value == int(value) else repr(float(value))
