"""Train when there are enough records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import SupportsIndex, override

from pamiq_jax.conditions.arguments import checked_integer
from pamiq_jax.conditions.base import Condition, Progress, Truth, Wake


def min_size(minimum: SupportsIndex) -> Condition:
    """Return the condition that the buffer holds at least `minimum` records.

    A buffer with a smaller capacity never does, so a system with the two is refused when it is built.

    Args:
        minimum: number of records, at least 1.

    Raises:
        InvalidValueError: if `minimum` is not such a number.

    Example:
        >>> min_size(1000)(Progress(size=12), Progress()).reason
        'has 12 of 1000 records'
    """
    return _MinSize(checked_integer("min_size(minimum)", minimum, least=1))


@dataclass(frozen=True, repr=False)
class _MinSize(Condition):
    minimum: int

    @override
    def test(self, now: Progress, last: Progress) -> Truth:
        return now.size >= self.minimum

    @override
    def explain(self, now: Progress, last: Progress) -> str:
        return f"has {now.size} of {self.minimum} records"

    @override
    def wake(self, now: Progress, last: Progress) -> Wake:
        return Wake(records=max(1, self.minimum - int(now.size)))

    @override
    def never(self, capacity: int) -> str | None:
        return (
            f"{self!r} needs more records than the {capacity} that the buffer holds"
            if capacity < self.minimum
            else None
        )

    @override
    def __repr__(self) -> str:
        return f"min_size({self.minimum})"


def min_new(minimum: SupportsIndex) -> Condition:
    """Return the condition that at least `minimum` records were inserted since the last run started.

    The count is of insertions, not of what is still there: it may be larger than the buffer's capacity, and then some
    records are overwritten before a run could draw them. Before the first run all records are new.

    Args:
        minimum: number of records, at least 1.

    Raises:
        InvalidValueError: if `minimum` is not such a number.

    Example:
        >>> min_new(100)(Progress(inserted=240), last=Progress(inserted=200)).reason
        '40 of 100 new records'
    """
    return _MinNew(checked_integer("min_new(minimum)", minimum, least=1))


@dataclass(frozen=True, repr=False)
class _MinNew(Condition):
    minimum: int

    @override
    def test(self, now: Progress, last: Progress) -> Truth:
        return now.inserted - last.inserted >= self.minimum

    @override
    def explain(self, now: Progress, last: Progress) -> str:
        return f"{now.inserted - last.inserted} of {self.minimum} new records"

    @override
    def wake(self, now: Progress, last: Progress) -> Wake:
        return Wake(records=max(1, self.minimum - int(now.inserted - last.inserted)))

    @override
    def __repr__(self) -> str:
        return f"min_new({self.minimum})"
