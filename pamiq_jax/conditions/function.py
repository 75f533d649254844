"""Any callable as a condition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, override

import jax
import numpy as np

from pamiq_jax.conditions.arguments import INT32_MAX, checked_number, short_number
from pamiq_jax.conditions.base import Condition, ConditionFn, ConditionLike, Progress, Truth, Wake
from pamiq_jax.errors import InvalidValueError


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
    if not callable(function):
        raise InvalidValueError("when(function)", function, "a callable (now, last) -> bool")
    if recheck_seconds is None:
        return _Function(function, description, None)
    checked = checked_number("when(recheck_seconds)", recheck_seconds, least=0.001, most=INT32_MAX // 1000)
    return _Function(function, description, round(checked * 1000))


def as_condition(condition: ConditionLike) -> Condition:
    """Return the condition itself, or a callable wrapped by `when`.

    Raises:
        InvalidValueError: if it is neither.

    Example:
        >>> as_condition(lambda now, last: (now.size > 2, "wants three"))(Progress(size=1), Progress()).reason
        'wants three'
    """
    return condition if isinstance(condition, Condition) else when(condition)


@dataclass(frozen=True, repr=False)
class _Function(Condition):
    function: ConditionFn
    description: str | None
    recheck_milliseconds: int | None

    @override
    def test(self, now: Progress, last: Progress) -> Truth:
        return self._ask(now, last)[0]

    @override
    def explain(self, now: Progress, last: Progress) -> str:
        truth, reason = self._ask(now, last)
        return reason or f"{self.description or self._name()}: {'yes' if truth else 'no'}"

    @override
    def wake(self, now: Progress, last: Progress) -> Wake:
        return Wake(records=1, milliseconds=self.recheck_milliseconds)

    @override
    def __repr__(self) -> str:
        options = [self._name()]
        if self.description is not None:
            options.append(f"description={self.description!r}")
        if self.recheck_milliseconds is not None:
            options.append(f"recheck_seconds={short_number(self.recheck_milliseconds / 1000)}")
        return f"when({', '.join(options)})"

    def _name(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))

    def _ask(self, now: Progress, last: Progress) -> tuple[Truth, str]:
        answer: Any = self.function(now, last)
        truth, reason = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, "")
        if isinstance(truth, np.bool):
            truth = bool(truth)
        # A forgotten `return` would otherwise be a trainer that waits for ever.
        if not isinstance(truth, bool | jax.Array) or not isinstance(reason, str):
            raise InvalidValueError(f"what {self._name()} returned", answer, "a bool, or a bool and a reason")
        return truth, reason
