"""A condition taken apart: which of its parts hold now, and why."""

from __future__ import annotations

from typing import NamedTuple

from pamiq_jax.conditions.base import All, Any, Condition, Not
from pamiq_jax.conditions.progress import Progress


class Term(NamedTuple):
    """A condition, or a part of one, at one moment.

    Attributes:
        depth: how deep it lies: 0 for the whole.
        text: the condition as it is written.
        holds: whether it holds.
        reason: the facts behind that.
    """

    depth: int
    text: str
    holds: bool
    reason: str


def terms(condition: Condition, now: Progress, last: Progress) -> tuple[Term, ...]:
    """Return a condition and its parts, outermost first, each with its truth and the reason.

    Args:
        condition: any condition.
        now: the progress to decide on.
        last: the progress at the start of the last run.

    Example:
        >>> from pamiq_jax.conditions import min_new, min_size
        >>> for term in terms(min_size(10) & ~min_new(5), Progress(size=12, inserted=12), Progress()):
        ...     print("  " * term.depth + term.text, term.holds)
        min_size(10) & ~min_new(5) False
          min_size(10) True
          ~min_new(5) False
            min_new(5) True
    """
    return tuple(_terms(condition, now.as_ints(), last.as_ints(), 0))


def _terms(condition: Condition, now: Progress, last: Progress, depth: int) -> list[Term]:
    whole = Term(depth, repr(condition), bool(condition.test(now, last)), condition.explain(now, last))
    parts = condition.parts if isinstance(condition, All | Any) else ()
    if isinstance(condition, Not):
        parts = (condition.condition,)
    return [whole, *(term for part in parts for term in _terms(part, now, last, depth + 1))]
