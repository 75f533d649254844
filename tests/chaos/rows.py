"""What a scenario is given, and the row of the table that it returns."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Form(NamedTuple):
    """How much of a scenario to do.

    Attributes:
        rng: the source of all chance in it.
        is_long: the long form of `make chaos`, or the short one of the tests.
        minutes: how long the soak of the long form lasts.
    """

    rng: random.Random
    is_long: bool = False
    minutes: float = 30.0

    def times(self, short: int, long: int) -> int:
        """Return how often to try."""
        return long if self.is_long else short


class Row(NamedTuple):
    """What was tried, and what became of it.

    Attributes:
        tried: what was done to the system.
        times: how often.
        happened: what it did, in figures.
        lost: each broken promise, in words; none if all were kept.
    """

    tried: str
    times: int
    happened: str
    lost: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing was lost."""
        return not self.lost


type Scenario = Callable[[Form], list[Row]]
"""Tries one kind of misfortune on a running system."""


class Losses:
    """The promises that were broken so far.

    Example:
        >>> losses = Losses()
        >>> losses.check(2 > 1, "order")
        >>> losses.check(1 > 2, "arithmetic")
        >>> losses.found
        ('arithmetic',)
    """

    def __init__(self) -> None:
        self._found: list[str] = []

    def check(self, is_kept: bool, promise: str) -> None:
        """Note a promise that was not kept."""
        if not is_kept:
            self._found.append(promise)

    @property
    def found(self) -> tuple[str, ...]:
        """What was broken, each once, in the order of time."""
        return tuple(dict.fromkeys(self._found))


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table of Markdown.

    Example:
        >>> print(table([Row("kill -9", 200, "200 resumed")]))
        | what was tried | times | what happened | lost |
        |---|---:|---|---|
        | kill -9 | 200 | 200 resumed | nothing |
    """
    lines = ["| what was tried | times | what happened | lost |", "|---|---:|---|---|"]
    for row in rows:
        lost = "nothing" if row.passed else f"**{'; '.join(row.lost)}**"
        lines.append(f"| {row.tried} | {row.times:,} | {row.happened} | {lost} |")
    return "\n".join(lines)
