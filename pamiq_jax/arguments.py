"""Check what users give, and what their functions return."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Collection
from fractions import Fraction
from typing import Any, SupportsIndex, TypeGuard, cast

import numpy as np

from pamiq_jax.errors import InvalidValueError

INT32_MAX = 2**31 - 1
"""Counters are int32 when a condition is traced, so its constants must fit too."""

MAX_DENOMINATOR = 1000
"""Of a ratio or a share that a condition takes."""


def is_tuple_of(count: int, output: Any) -> TypeGuard[tuple[Any, ...]]:
    """Return whether what a user's function returned is a tuple of so many things.

    Example:
        >>> is_tuple_of(2, (1.0, {})), is_tuple_of(2, [1.0, {}]), is_tuple_of(2, 1.0)
        (True, False, False)
    """
    return isinstance(output, tuple) and len(cast(tuple[Any, ...], output)) == count


def checked_integer(argument: str, value: SupportsIndex, least: int, most: int = INT32_MAX) -> int:
    """Return `value` as a Python int, or raise InvalidValueError unless it is one from `least` to `most`."""
    integer = None if isinstance(value, bool) or not hasattr(value, "__index__") else operator.index(value)
    if integer is None or not least <= integer <= most:
        raise InvalidValueError(argument, value, f"an integer from {least} to {most}")
    return integer


def checked_number(argument: str, value: float, least: float, most: float) -> float:
    """Return `value`, or raise InvalidValueError unless it is from `least` to `most`; NaN is not."""
    given: Any = value  # users may not type
    if isinstance(value, bool) or not isinstance(given, numbers.Real) or not least <= value <= most:
        raise InvalidValueError(argument, value, f"a number from {least} to {most}")
    return value


def checked_positive(argument: str, value: float, remedy: str = "") -> float:
    """Return `value`, or raise InvalidValueError unless it is a number above 0; neither NaN nor infinity is."""
    given: Any = value  # users may not type
    is_number = isinstance(given, int | float | np.number) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:
        raise InvalidValueError(argument, value, "more than 0 and finite", remedy)
    return value


def checked_names(argument: str, names: Collection[str] | None, kind: str) -> None:
    """Raise InvalidValueError if names are one string, whose letters would be taken for them, or are no strings."""
    if isinstance(names, str):
        raise InvalidValueError(argument, names, f"a tuple of {kind} names", f"write ({names!r},)")
    given: Any = () if names is None else names  # users may not type
    if not isinstance(given, Collection) or not all(isinstance(name, str) for name in cast(Collection[Any], given)):
        raise InvalidValueError(argument, names, f"a tuple of {kind} names", "name them as the system does")


def checked_fraction(argument: str, value: float, least: float, most: float) -> Fraction:
    """Return the fraction that `value` was meant to be, or raise InvalidValueError.

    Refused are what is not from `least` to `most`, and what is no fraction with a small denominator: counters are
    multiplied by it.
    """
    exact = Fraction(checked_number(argument, value, least, most))
    near = exact.limit_denominator(MAX_DENOMINATOR)
    if abs(near - exact) > exact / 10**6:
        expected = f"a fraction with a denominator up to {MAX_DENOMINATOR}"
        raise InvalidValueError(argument, value, expected, f"the nearest is {short_number(float(near))}")
    return near


def checked_milliseconds(argument: str, seconds: float) -> int:
    """Return `seconds` in milliseconds, or raise InvalidValueError unless it is from one of them to 24 days."""
    return round(checked_number(argument, seconds, least=0.001, most=INT32_MAX // 1000) * 1000)


def short_number(value: float) -> str:
    """Return the shortest text that reads back as `value`."""
    return str(int(value)) if value == int(value) else repr(float(value))
