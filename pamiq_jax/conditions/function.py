"""Conditions made of functions: the factories' own, and any callable of a user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, override

import jax
import numpy as np

from pamiq_jax.arguments import checked_condition, checked_milliseconds, short_number
from pamiq_jax.conditions.base import Condition, ConditionFn, ConditionLike
from pamiq_jax.conditions.progress import Progress, Spans, Truth, Wake
from pamiq_jax.errors import InvalidValueError


@dataclass(frozen=True, repr=False)
class Rule(Condition):
    """A condition made of functions. The code that makes it, and a user's function if it has one, are what it is."""

    code: str
    holds: Callable[[Progress, Progress], Truth] = field(compare=False)
    facts: Callable[[Progress, Progress], str] = field(compare=False)
    hint: Callable[[Progress, Progress], Wake] = field(compare=False)
    why_never: Callable[[int], str | None] = field(default=lambda capacity: None, compare=False)
    why_always: str | None = None
    function: ConditionFn | None = None
    asks: Spans | None = field(default=None, compare=False)

    @override
    def test(self, now: Progress, last: Progress) -> Truth:
        return self.holds(now, last)

    @override
    def explain(self, now: Progress, last: Progress) -> str:
        return self.facts(now, last)

    @override
    def wake(self, now: Progress, last: Progress) -> Wake:
        return self.hint(now, last)

    @override
    def never(self, capacity: int) -> str | None:
        return self.why_never(capacity)

    @override
    def always(self, capacity: int) -> str | None:
        return self.why_always

    @override
    def spans(self) -> Spans | None:
        return self.asks

    @override
    def __repr__(self) -> str:
        return self.code


def when(function: ConditionFn, *, description: str | None = None, recheck_seconds: float | None = None) -> Condition:
    """Return the condition that `function(now, last)` is true.

    It may be called several times for one decision, so it must be pure. If it is to be compiled, it
    uses only what works under `jit`.

    Args:
        function: takes the progress now and at the start of the last run; returns a bool, or a bool and the reason.
        description: what it waits for, in the reason where the function gives none; its name by default.
        recheck_seconds: ask again after this time even if no record came; without it, only new records do that.

    Raises:
        InvalidValueError: if `function` cannot be called, or `recheck_seconds` is out of range.

    Example:
        >>> condition = when(lambda now, last: now.size % 8 == 0, description="a multiple of 8 records")
        >>> condition(Progress(size=5), Progress()).reason
        'a multiple of 8 records: no'
    """
    checked_condition("when(function)", function)
    name = getattr(function, "__name__", repr(function))
    recheck = None if recheck_seconds is None else checked_milliseconds("when(recheck_seconds)", recheck_seconds)

    def facts(now: Progress, last: Progress) -> str:
        truth, reason = _ask(function, name, now, last)
        return reason or f"{description or name}: {'yes' if truth else 'no'}"

    described = "" if description is None else f", description={description!r}"
    rechecked = "" if recheck is None else f", recheck_seconds={short_number(recheck / 1000)}"
    return Rule(
        f"when({name}{described}{rechecked})",
        holds=lambda now, last: _ask(function, name, now, last)[0],
        facts=facts,
        hint=lambda now, last: Wake(records=1, milliseconds=recheck),
        function=function,
    )


def _ask(function: ConditionFn, name: str, now: Progress, last: Progress) -> tuple[Truth, str]:
    answer: Any = function(now, last)
    truth, reason = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, "")
    if isinstance(truth, np.bool):
        truth = bool(truth)
    # A forgotten `return` would otherwise be a trainer that waits for ever.
    if not isinstance(truth, bool | jax.Array) or not isinstance(reason, str):
        raise InvalidValueError(f"what {name} returned", answer, "a bool, or a bool and a reason")
    return truth, reason


def as_condition(condition: ConditionLike) -> Condition:
    """Return the condition itself, or a callable wrapped by `when`.

    Raises:
        InvalidValueError: if it is neither.

    Example:
        >>> as_condition(lambda now, last: (now.size > 2, "wants three"))(Progress(size=1), Progress()).reason
        'wants three'
    """
    return condition if isinstance(condition, Condition) else when(condition)
