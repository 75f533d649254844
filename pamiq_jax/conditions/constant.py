"""Train whenever there is time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import override

from pamiq_jax.conditions.base import Condition, Progress, Truth, Wake


def always() -> Condition:
    """Return the condition that always holds: the trainer's next run starts as soon as it can.

    Example:
        >>> always()(Progress(), Progress()).go
        True
    """
    return _Always()


@dataclass(frozen=True, repr=False)
class _Always(Condition):
    @override
    def test(self, now: Progress, last: Progress) -> Truth:
        return True

    @override
    def explain(self, now: Progress, last: Progress) -> str:
        return "always"

    @override
    def wake(self, now: Progress, last: Progress) -> Wake:
        return Wake()

    @override
    def always(self, capacity: int) -> str | None:
        return f"{self!r} always holds"

    @override
    def __repr__(self) -> str:
        return "always()"
