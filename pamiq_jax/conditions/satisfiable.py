"""Whether a condition can hold at all: what its parts ask of one quantity must leave some number of it."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

from pamiq_jax.conditions.base import All, Any, Condition, Not
from pamiq_jax.errors import UnsatisfiableConditionError

MAX_CASES = 256
"""Of a condition written as an `|` of `&`; what has more is not looked into, and may hold."""

type _Ranges = tuple[tuple[float, float], ...]


class _Asked(NamedTuple):
    """What is asked of one quantity, and by which parts."""

    ranges: _Ranges
    by: tuple[str, ...]


type _Case = dict[str, _Asked]
"""By quantity: what must all be so, in one of the ways in which a condition can hold."""


def check_satisfiable(condition: Condition, capacity: int, name: str) -> None:
    """Raise if `condition` can never hold for a buffer of `capacity` records.

    Args:
        condition: when the trainer should run.
        capacity: how many records the buffer holds at most.
        name: whose condition it is, for the message: `trainer 'vae'`.

    Raises:
        UnsatisfiableConditionError: if it can never hold, as far as a part of it or `contradiction` knows.

    Example:
        >>> from pamiq_jax.conditions import min_size
        >>> check_satisfiable(min_size(100), capacity=100, name="trainer 'vae'")
    """
    if reason := condition.never(capacity):
        remedy = "give it another condition, or its buffer a larger capacity"
    elif reason := contradiction(condition, capacity):
        remedy = "leave a part out, or join what excludes each other with | instead of &"
    else:
        return
    raise UnsatisfiableConditionError(f"{name} would wait for ever for {condition!r}: {reason}; {remedy}")


def contradiction(condition: Condition, capacity: int, *, most_versions: int | None = None) -> str | None:
    """Return which parts of a condition contradict each other, so that it can never hold; None if it may.

    Sound and not complete: what it names never holds, and what it does not name may never hold either. It compares
    what `Condition.spans` tells of one quantity. Not found are contradictions between two quantities ("50 new
    records, yet fewer than 10 in all"), in functions of your own, between the conditions of several buffers, and in
    more than `MAX_CASES` cases.

    Args:
        condition: any.
        capacity: how many records the buffer holds at most.
        most_versions: how many snapshots can have been published since the last run; None for any number.

    Example:
        >>> from pamiq_jax.conditions import every_versions, min_new, min_size
        >>> contradiction(min_size(50) & min_new(10) & ~min_new(5), capacity=100)
        'min_new(10) and ~min_new(5) exclude each other'
        >>> contradiction(every_versions(1), capacity=100, most_versions=0)
        'every_versions(1) and at most 0 further versions exclude each other'
    """
    reasons: list[str] = []
    limits = {
        "records": _Asked(((0, capacity + 1),), (f"at most {capacity} records",)),
        "seconds of the day": _Asked(((0, 24 * 3600),), ("24 hours of a day",)),
    }
    if most_versions is not None:
        limits["further versions"] = _Asked(((0, most_versions + 1),), (f"at most {most_versions} further versions",))
    if _joint(_cases(condition, capacity, True, reasons), [limits], reasons):
        return None
    reasons = list(dict.fromkeys(reasons)) or [f"{condition!r} leaves no case"]
    return "; ".join(reasons[:3]) + (f"; and {len(reasons) - 3} more" if len(reasons) > 3 else "")


def _cases(condition: Condition, capacity: int, holds: bool, reasons: list[str]) -> list[_Case]:
    """Return the ways in which a condition can hold, or not hold; an empty case asks nothing that is known."""
    kind = type(condition)  # a user's subclass may mean something else
    if kind is Not:
        assert isinstance(condition, Not)
        return _cases(condition.condition, capacity, not holds, reasons)
    if kind is All or kind is Any:
        assert isinstance(condition, All | Any)
        parts = [_cases(part, capacity, holds, reasons) for part in condition.parts]
        if (kind is Any) is holds:
            cases = [case for part in parts for case in part]
            return cases if len(cases) <= MAX_CASES else [{}]
        return functools.reduce(lambda left, right: _joint(left, right, reasons), parts)
    if reason := condition.never(capacity) if holds else condition.always(capacity):
        reasons.append(reason)
        return []
    return _asked(condition, holds)


def _asked(condition: Condition, holds: bool) -> list[_Case]:
    spans = condition.spans()
    if spans is None:
        return [{}]
    if holds:
        return [{quantity: _Asked(ranges, (repr(condition),)) for quantity, ranges in spans.items()}]
    return [{quantity: _Asked(_outside(ranges), (f"~{condition!r}",))} for quantity, ranges in spans.items()]


def _joint(left: list[_Case], right: list[_Case], reasons: list[str]) -> list[_Case]:
    """Return the ways in which both can be so at once."""
    if len(left) * len(right) > MAX_CASES:
        return [{}]
    merged = [_merged(one, other) for one in left for other in right]
    reasons += [case for case in merged if isinstance(case, str)]
    return [case for case in merged if not isinstance(case, str)]


def _merged(one: _Case, other: _Case) -> _Case | str:
    merged = {**one, **other}
    for quantity in one.keys() & other.keys():
        by = tuple(dict.fromkeys((*one[quantity].by, *other[quantity].by)))
        ranges = _overlap(one[quantity].ranges, other[quantity].ranges)
        if not ranges:
            return f"{' and '.join(by)} exclude each other"
        merged[quantity] = _Asked(ranges, by)
    return merged


def _overlap(one: _Ranges, other: _Ranges) -> _Ranges:
    pairs = ((max(a, c), min(b, d)) for a, b in one for c, d in other)
    return tuple(pair for pair in pairs if pair[0] < pair[1])


def _outside(ranges: _Ranges) -> _Ranges:
    borders = (-math.inf, *(border for pair in ranges for border in pair), math.inf)
    pairs = zip(borders[::2], borders[1::2], strict=True)
    return tuple(pair for pair in pairs if pair[0] < pair[1])
