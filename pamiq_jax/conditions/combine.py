"""Conditions made of conditions: `&` is All, `|` is Any, `~` is Not."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self, override

from pamiq_jax.conditions.base import Condition, ConditionLike, Progress, Truth, Wake
from pamiq_jax.conditions.function import as_condition


@dataclass(frozen=True, repr=False)
class _Combination(Condition):
    """What All and Any share: they differ in which truth of a part decides the whole."""

    parts: tuple[Condition, ...]

    decisive: ClassVar[bool]
    word: ClassVar[str]
    symbol: ClassVar[str]

    @classmethod
    def of(cls, *conditions: ConditionLike) -> Self:
        """Return the combination, with parts that are such a combination themselves unfolded."""
        parts: list[Condition] = []
        for condition in map(as_condition, conditions):
            parts.extend(condition.parts if isinstance(condition, cls) else (condition,))
        return cls(tuple(parts))

    @override
    def explain(self, now: Progress, last: Progress) -> str:
        parts = self._deciding(now, last) or self.parts
        return f" {self.word} ".join(_grouped(part, part.explain(now, last)) for part in parts)

    @override
    def wake(self, now: Progress, last: Progress) -> Wake:
        deciding = self._deciding(now, last)
        wakes = [part.wake(now, last) for part in deciding or self.parts]
        return _all_must_change(wakes) if deciding else _earliest(wakes)

    def _deciding(self, now: Progress, last: Progress) -> list[Condition]:
        return [part for part in self.parts if bool(part.test(now, last)) is self.decisive]

    @override
    def __repr__(self) -> str:
        return f" {self.symbol} ".join(_grouped(part, repr(part)) for part in self.parts)


class All(_Combination):
    """Holds when every part does; `first & second` makes it.

    Example:
        >>> from pamiq_jax.conditions import min_new, min_size
        >>> min_size(1000) & min_new(100)
        min_size(1000) & min_new(100)
    """

    decisive = False
    word = "and"
    symbol = "&"

    @override
    def test(self, now: Progress, last: Progress) -> Truth:
        return functools.reduce(operator.and_, (part.test(now, last) for part in self.parts))

    @override
    def never(self, capacity: int) -> str | None:
        return _some(part.never(capacity) for part in self.parts)

    @override
    def always(self, capacity: int) -> str | None:
        return _every(part.always(capacity) for part in self.parts)


class Any(_Combination):
    """Holds when one part does; `first | second` makes it.

    Example:
        >>> from pamiq_jax.conditions import every_seconds, min_new
        >>> min_new(100) | every_seconds(60)
        min_new(100) | every_seconds(60)
    """

    decisive = True
    word = "or"
    symbol = "|"

    @override
    def test(self, now: Progress, last: Progress) -> Truth:
        return functools.reduce(operator.or_, (part.test(now, last) for part in self.parts))

    @override
    def never(self, capacity: int) -> str | None:
        return _every(part.never(capacity) for part in self.parts)

    @override
    def always(self, capacity: int) -> str | None:
        return _some(part.always(capacity) for part in self.parts)


@dataclass(frozen=True, repr=False)
class Not(Condition):
    """Holds when `condition` does not; `~condition` makes it.

    Example:
        >>> from pamiq_jax.conditions import time_of_day
        >>> ~time_of_day(8, 20)
        ~time_of_day(8, 20)
    """

    condition: Condition

    @override
    def test(self, now: Progress, last: Progress) -> Truth:
        return self.condition.test(now, last) ^ True  # `~` of a Python bool would be -1 or -2

    @override
    def explain(self, now: Progress, last: Progress) -> str:
        return f"not: {_grouped(self.condition, self.condition.explain(now, last))}"

    @override
    def wake(self, now: Progress, last: Progress) -> Wake:
        return self.condition.wake(now, last)

    @override
    def never(self, capacity: int) -> str | None:
        return self.condition.always(capacity)

    @override
    def always(self, capacity: int) -> str | None:
        return self.condition.never(capacity)

    @override
    def __repr__(self) -> str:
        return f"~{_grouped(self.condition, repr(self.condition))}"


def _grouped(part: Condition, text: str) -> str:
    return f"({text})" if isinstance(part, _Combination) else text


def _some(reasons: Iterable[str | None]) -> str | None:
    return next((reason for reason in reasons if reason is not None), None)


def _every(reasons: Iterable[str | None]) -> str | None:
    known = list(reasons)
    return None if None in known else " and ".join(reason for reason in known if reason is not None)


def _earliest(wakes: Sequence[Wake]) -> Wake:
    return Wake(
        min((wake.records for wake in wakes if wake.records is not None), default=None),
        min((wake.milliseconds for wake in wakes if wake.milliseconds is not None), default=None),
    )


def _latest(wakes: Sequence[Wake]) -> Wake:
    return Wake(
        max((wake.records for wake in wakes if wake.records is not None), default=None),
        max((wake.milliseconds for wake in wakes if wake.milliseconds is not None), default=None),
    )


def _all_must_change(wakes: Sequence[Wake]) -> Wake:
    latest = _latest(wakes)
    # A thread wakes at whichever comes first, so `latest` is too late where one part needs 10 records or 1 s and
    # another 5 records or 3 s: 5 records and 1 s do. It is safe only if a single part rules out all that is earlier.
    safe = any(
        wake.records in (None, latest.records) and wake.milliseconds in (None, latest.milliseconds) for wake in wakes
    )
    return latest if safe else _earliest(wakes)
