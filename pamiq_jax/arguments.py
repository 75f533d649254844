"""Check what users give, and what their functions return."""

from __future__ import annotations

import inspect
import math
import numbers
import operator
from collections.abc import Collection, Mapping
from fractions import Fraction
from typing import Any, SupportsIndex, TypeGuard, cast

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax.errors import InvalidValueError, UnknownNameError
from pamiq_jax.types import Params

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


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a value is a real number of Python or numpy; a bool is none, nor is an array.

    Example:
        >>> [is_number(value) for value in (1, np.float32(0.5), True, "1")]
        [True, True, False, False]
    """
    return not isinstance(value, bool) and isinstance(value, numbers.Real)


def checked_integer(argument: str, value: SupportsIndex, least: int, most: int = INT32_MAX) -> int:
    """Return `value` as a Python int, or raise InvalidValueError unless it is one from `least` to `most`."""
    integer = None if isinstance(value, bool) or not hasattr(value, "__index__") else operator.index(value)
    if integer is None or not least <= integer <= most:
        raise InvalidValueError(argument, value, f"an integer from {least} to {most}")
    return integer


def checked_number(argument: str, value: float, least: float, most: float) -> float:
    """Return `value`, or raise InvalidValueError unless it is from `least` to `most`; NaN is not."""
    if not is_number(value) or not least <= value <= most:
        raise InvalidValueError(argument, value, f"a number from {least} to {most}")
    return value


def checked_positive(argument: str, value: float, remedy: str = "") -> float:
    """Return `value`, or raise InvalidValueError unless it is a number above 0; neither NaN nor infinity is."""
    if not is_number(value) or not 0 < value < math.inf:
        raise InvalidValueError(argument, value, "more than 0 and finite", remedy)
    return value


def checked_names(argument: str, names: Collection[str] | None, kind: str) -> None:
    """Raise InvalidValueError if names are one string, whose letters would be taken for them, no strings, or empty."""
    if isinstance(names, str):
        raise InvalidValueError(argument, names, f"a tuple of {kind} names", f"write ({names!r},)")
    given: Any = () if names is None else names  # users may not type
    if not isinstance(given, Collection) or not all(isinstance(name, str) for name in cast(Collection[Any], given)):
        raise InvalidValueError(argument, names, f"a tuple of {kind} names", "name them as the system does")
    if len(given) > len(set(given)):
        raise InvalidValueError(argument, names, f"{kind} names, each once", "name each of them once")
    if "" in given:
        raise InvalidValueError(argument, "", f"a {kind} name of one letter or more", "give it one")


def checked_known(
    argument: str, kind: str, names: Collection[str] | None, known: Collection[str] | None, remedy: str = ""
) -> None:
    """Raise UnknownNameError if a name is not among those known; None stands for whatever names there are."""
    for name in names or ():
        if known is not None and name not in known:
            raise UnknownNameError(kind, name, known, argument, remedy)


def checked_data(argument: str, data: Any) -> None:
    """Raise InvalidValueError unless `data` is a buffer's name, or buffers' names by their names in the batch."""
    given = cast(Mapping[Any, Any], data) if isinstance(data, Mapping) else {"batch": data}
    if not given or not all(isinstance(name, str) and name for name in (*given, *given.values())):
        remedy = 'write data="x" for one buffer, data={"old": "x", "new": "y"} for several'
        raise InvalidValueError(argument, data, "a buffer's name, or a dict of them by name in the batch", remedy)


def checked_function(
    argument: str, function: Any, expected: str, remedy: str = "", *, is_optional: bool = False
) -> None:
    """Raise InvalidValueError unless `function` can be called; None is right if it is optional."""
    if not callable(function) and not (is_optional and function is None):
        raise InvalidValueError(argument, function, expected + " or None" * is_optional, remedy)


def checked_condition(argument: str, function: Any) -> None:
    """Raise InvalidValueError unless `function` can be called as `(now, last)` and is not what makes a condition."""
    remedy = "write one, or take a condition: min_new(100)"
    checked_function(argument, function, "a callable (now, last) -> bool", remedy)
    name = getattr(function, "__name__", "it")
    if getattr(function, "__annotations__", {}).get("return") == "Condition":
        raise InvalidValueError(argument, function, "a condition, and this makes one", f"call it: {name}(...)")
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        remedy = f"take these two, or call {name} if it makes a condition"
        raise InvalidValueError(argument, function, "a callable that takes (now, last)", remedy) from None
    except ValueError:  # a builtin does not tell what it takes
        return


def checked_flag(argument: str, value: Any) -> None:
    """Raise InvalidValueError unless `value` is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise InvalidValueError(argument, value, "True or False")


def checked_kind(argument: str, value: Any, kind: type, expected: str, remedy: str = "") -> None:
    """Raise InvalidValueError, which names its type, unless `value` is of a class."""
    if not isinstance(value, kind):
        raise InvalidValueError(argument, in_short(value), expected, remedy)


def checked_optimizer(argument: str, tx: Any, remedy: str = "") -> None:
    """Raise InvalidValueError unless `tx` has what an optax transformation has."""
    if not callable(getattr(tx, "init", None)) or not callable(getattr(tx, "update", None)):
        remedy = remedy or "for example optax.adam(1e-3)"
        raise InvalidValueError(argument, in_short(tx), "an optax transformation", remedy)


def checked_floating(params: Params) -> Params:
    """Return parameters, or raise InvalidValueError if a leaf is none that a gradient can change: an integer, a key."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        if not jnp.issubdtype(dtype := jnp.result_type(leaf), jnp.floating):
            name = jax.tree_util.keystr(path) or "the tree itself"
            remedy = "make it a float, or keep it out: in a model that the trainer only `reads`, or in the loss"
            raise InvalidValueError(f"trained parameter {name}", str(dtype), "a float, to follow a gradient", remedy)
    return params


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


def in_short(value: Any) -> Any:
    """Return what to show of a value in an error: a string, a class or None as it is, else its type's name.

    Example:
        >>> in_short("adam"), in_short(None), in_short([1, 2])
        ('adam', None, 'list')
    """
    return value if value is None or isinstance(value, str | type) else type(value).__name__


def short_number(value: float) -> str:
    """Return the shortest text that reads back as `value`."""
    return str(int(value)) if value == int(value) else repr(float(value))
