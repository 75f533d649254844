"""The class that all conditions share and what `&`, `|` and `~` make of them."""

from __future__ import annotations

import functools
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self, final, override

from pamiq_jax.conditions.progress import Count, Decision, Progress, Spans, Truth, Wake, first_change, larger

type ConditionFn = Callable[[Progress, Progress], Truth | tuple[Truth, str]]
"""A user's own condition: `(now, last) -> bool` or `(now, last) -> (bool, reason)`, pure."""

type ConditionLike = Condition | ConditionFn
"""What `&` and `|` take on either side."""


class Condition(ABC):
    """Whether a trainer should run, as a pure function of its progress now and at its last run.

    Conditions are immutable and compose with `&`, `|` and `~`; any callable `(now, last) -> bool` takes
    part (see `when`). Asking changes nothing: what counts as new is measured from `last`, the
    progress at the start of the last run, and only the start of a run moves that.

    To write one, subclass with a frozen dataclass and give `test` and `explain`, then `wake`, `never`, `always`,
    `spans` and `forgive` where more is known than their defaults say.

    Example:
        >>> from pamiq_jax.conditions import min_new, min_size
        >>> condition = min_size(1000) & min_new(100)
        >>> condition(Progress(size=12, inserted=12), last=Progress()).reason
        'has 12 of 1000 records and 12 of 100 new records'
    """

    @final
    def __call__(self, now: Progress, last: Progress) -> Decision:
        """Return the decision with its reason. Called outside of `jit`; inside it, use `test`."""
        now, last = now.as_ints(), last.as_ints()
        go = bool(self.test(now, last))
        return Decision(go, self.explain(now, last), Wake() if go else self.wake(now, last))

    @final
    def settle(self, now: Progress, last: Progress) -> Progress:
        """Return what the next run is measured from if one starts now: the new `last`.

        That is `now`, with `forgiven` raised by what `forgive` says. Called outside of `jit`, once for each run.

        Args:
            now: the progress that the decision to run was made on; its `forgiven` is not read.
            last: what this returned for the run before, or `Progress()`.
        """
        now, last = now.as_ints(), last.as_ints()
        return now._replace(forgiven=last.forgiven + int(self.forgive(now, last)))

    @abstractmethod
    def test(self, now: Progress, last: Progress) -> Truth:
        """Return whether the condition holds. Works under `jit` and `vmap`, on int32 arrays."""

    @abstractmethod
    def explain(self, now: Progress, last: Progress) -> str:
        """Return the facts behind `test` as a phrase with numbers, true whether the condition holds or not."""

    def wake(self, now: Progress, last: Progress) -> Wake:
        """Return the least that must happen before `test` can change from what it is, either way."""
        return Wake(records=1)

    def forgive(self, now: Progress, last: Progress) -> Count:
        """Return how many samples that are owed to the trainer are let go if a run starts now.

        Works under `jit` and `vmap`, as `test` does. Nothing is let go twice: see `settle`.
        """
        return 0

    def never(self, capacity: int) -> str | None:
        """Return why this can never hold for a buffer of `capacity` records, None if it can or may."""
        return None

    def always(self, capacity: int) -> str | None:
        """Return why this always holds for a buffer of `capacity` records, None if it may not."""
        return None

    def spans(self) -> Spans | None:
        """Return what this asks of which quantities: it holds just when all of them lie there; None if not known."""
        return None

    def _repr_html_(self) -> str:
        from pamiq_jax.conditions.view import condition_html  # which takes the classes below apart

        return condition_html(self)

    def __and__(self, other: ConditionLike) -> Condition:
        return All.of(self, other) if callable(other) else NotImplemented

    def __rand__(self, other: ConditionLike) -> Condition:
        return All.of(other, self) if callable(other) else NotImplemented

    def __or__(self, other: ConditionLike) -> Condition:
        return Any.of(self, other) if callable(other) else NotImplemented

    def __ror__(self, other: ConditionLike) -> Condition:
        return Any.of(other, self) if callable(other) else NotImplemented

    def __invert__(self) -> Condition:
        return Not(self)

    def __bool__(self) -> bool:
        raise TypeError(f"{self!r} has no truth of its own: join conditions with & | ~, not with `and`, `or`, `not`")


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
        from pamiq_jax.conditions.function import as_condition  # which is built on the class above

        parts: list[Condition] = []
        for condition in map(as_condition, conditions):
            parts.extend(condition.parts if isinstance(condition, cls) else (condition,))
        return cls(tuple(parts))

    @override
    def test(self, now: Progress, last: Progress) -> Truth:
        join = operator.or_ if self.decisive else operator.and_
        return functools.reduce(join, (part.test(now, last) for part in self.parts))

    @override
    def explain(self, now: Progress, last: Progress) -> str:
        parts = self._deciding(now, last) or self.parts
        return f" {self.word} ".join(_grouped(part, part.explain(now, last)) for part in parts)

    @override
    def wake(self, now: Progress, last: Progress) -> Wake:
        deciding = self._deciding(now, last)
        return first_change([part.wake(now, last) for part in deciding or self.parts], of_all=bool(deciding))

    @override
    def forgive(self, now: Progress, last: Progress) -> Count:
        # The counter is one for all parts: with the largest, none of them is owed more than its cap.
        return functools.reduce(larger, (part.forgive(now, last) for part in self.parts))

    def _deciding(self, now: Progress, last: Progress) -> list[Condition]:
        return [part for part in self.parts if bool(part.test(now, last)) is self.decisive]

    @override
    def never(self, capacity: int) -> str | None:
        return _joined([part.never(capacity) for part in self.parts], need_all=self.decisive)

    @override
    def always(self, capacity: int) -> str | None:
        return _joined([part.always(capacity) for part in self.parts], need_all=not self.decisive)

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

    decisive, word, symbol = False, "and", "&"


class Any(_Combination):
    """Holds when one part does; `first | second` makes it.

    Example:
        >>> from pamiq_jax.conditions import every_seconds, min_new
        >>> min_new(100) | every_seconds(60)
        min_new(100) | every_seconds(60)
    """

    decisive, word, symbol = True, "or", "|"


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
    def forgive(self, now: Progress, last: Progress) -> Count:
        return self.condition.forgive(now, last)

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


def _joined(reasons: list[str | None], need_all: bool) -> str | None:
    known = [reason for reason in reasons if reason is not None]
    if need_all:
        return " and ".join(known) if len(known) == len(reasons) else None
    return known[0] if known else None
