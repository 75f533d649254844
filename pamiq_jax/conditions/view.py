"""A condition taken apart: which of its parts hold now, and why."""

from __future__ import annotations

from typing import NamedTuple

from pamiq_jax.conditions.base import All, Any, Condition, Not
from pamiq_jax.conditions.progress import Progress
from pamiq_jax.display import table


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


def condition_html(condition: Condition, now: Progress | None = None, last: Progress | None = None) -> str:
    """Return a condition and its parts as an HTML table; with progress, each with its truth and the reason.

    Args:
        condition: any condition.
        now: the progress to decide on; None shows the parts alone.
        last: the progress at the start of the last run; none has been if it is None.

    Example:
        >>> from pamiq_jax.conditions import min_new
        >>> "<td>✗ no</td><td>3 of 5 new records</td>" in condition_html(min_new(5), Progress(inserted=3))
        True
    """
    if now is None:
        return table(["condition"], [[_indented(part, depth)] for depth, part in _parts(condition, 0)])
    return table(["condition", "now", "why"], map(term_cells, terms(condition, now, last or Progress())))


def term_cells(term: Term) -> tuple[str, str, str]:
    """Return a term as it stands in a table: the condition, its truth as a mark and a word, and the reason.

    Example:
        >>> term_cells(Term(0, "always()", True, "always"))
        ('always()', '✓ holds', 'always')
    """
    return _indented(term.text, term.depth), "✓ holds" if term.holds else "✗ no", term.reason


def _indented(text: object, depth: int) -> str:
    return "\N{NO-BREAK SPACE}" * 4 * depth + str(text)


def _parts(condition: Condition, depth: int) -> list[tuple[int, Condition]]:
    return [(depth, condition), *(part for inner in _within(condition) for part in _parts(inner, depth + 1))]


def _within(condition: Condition) -> tuple[Condition, ...]:
    if isinstance(condition, Not):
        return (condition.condition,)
    return condition.parts if isinstance(condition, All | Any) else ()


def _terms(condition: Condition, now: Progress, last: Progress, depth: int) -> list[Term]:
    whole = Term(depth, repr(condition), bool(condition.test(now, last)), condition.explain(now, last))
    return [whole, *(term for part in _within(condition) for term in _terms(part, now, last, depth + 1))]
