"""What a condition may know, what it answers, and the class that all conditions share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, final

import jax

type Count = int | jax.Array
"""A Python int, or an int32 array `[]` when a condition is traced."""

type Truth = bool | jax.Array
"""A Python bool, or a bool array `[]` when a condition is traced."""


class Progress(NamedTuple):
    """How far a buffer and the trainer that watches it have come. The counters only grow, except `size`.

    A trainer that has not run yet has `Progress()`, all zero, as its last run.

    Args:
        size: records in the buffer now.
        seen: records that were made, including those that were dropped on the way.
        inserted: records that were put into the buffer, including those it has overwritten since.
        sampled: records that the trainer has drawn from the buffer.
        steps: training steps the trainer has taken.
        time_ms: milliseconds since the system started, pauses not counted.
        second_of_day: seconds since midnight, local time.

    Example:
        >>> Progress(size=10, inserted=12).size
        10
    """

    size: Count = 0
    seen: Count = 0
    inserted: Count = 0
    sampled: Count = 0
    steps: Count = 0
    time_ms: Count = 0
    second_of_day: Count = 0

    def as_ints(self) -> Progress:
        """Return the same counters as Python ints.

        Example:
            >>> import jax.numpy as jnp
            >>> Progress(size=jnp.int32(3)).as_ints().size
            3
        """
        return Progress(*(int(count) for count in self))


class Wake(NamedTuple):
    """The least that must happen before a condition's answer can change: a hint that lets a thread sleep.

    The answer can change once `records` further records have come, or once `milliseconds` have
    passed, whichever is first. None means: not by that. Waking too early is harmless.

    Example:
        >>> Wake(records=3)
        Wake(records=3, milliseconds=None)
    """

    records: int | None = None
    milliseconds: int | None = None


class Decision(NamedTuple):
    """A condition's answer: whether to train, why (or why not), and when to ask again if not.

    Example:
        >>> Decision(True, "has 5 of 5 records")
        Decision(go=True, reason='has 5 of 5 records', wake=Wake(records=None, milliseconds=None))
    """

    go: bool
    reason: str
    wake: Wake = Wake()


class Condition(ABC):
    """Whether a trainer should run, as a pure function of its progress now and at its last run.

    Conditions are immutable and compose with `&`, `|` and `~`; any callable `(now, last) -> bool` takes
    part (see `when`). Asking changes nothing: what counts as new is measured from `last`, the
    progress at the start of the last run, and only the start of a run moves that.

    To write one, subclass with a frozen dataclass and give `test` and `explain`, then `wake`, `never` and `always`
    where more is known than their defaults say.

    Example:
        >>> from pamiq_jax.conditions import min_new, min_size
        >>> condition = min_size(1000) & min_new(100)
        >>> condition(Progress(size=12, inserted=12), last=Progress()).reason
        'has 12 of 1000 records and 12 of 100 new records'
    """

    @final
    def __call__(self, now: Progress, last: Progress) -> Decision:
        """Return the decision with its reason. Called outside of `jit`; inside it, use `test`.

        Args:
            now: the counters at this moment: Python ints, or scalar arrays `[]`.
            last: the counters when the trainer's last run started; `Progress()` before the first.
        """
        now, last = now.as_ints(), last.as_ints()
        go = bool(self.test(now, last))
        return Decision(go, self.explain(now, last), Wake() if go else self.wake(now, last))

    @abstractmethod
    def test(self, now: Progress, last: Progress) -> Truth:
        """Return whether the condition holds. Works under `jit` and `vmap`, on int32 arrays."""

    @abstractmethod
    def explain(self, now: Progress, last: Progress) -> str:
        """Return the facts behind `test` as a phrase with numbers, true whether the condition holds or not."""

    def wake(self, now: Progress, last: Progress) -> Wake:
        """Return the least that must happen before `test` can change from what it is, either way."""
        return Wake(records=1)

    def never(self, capacity: int) -> str | None:
        """Return why this can never hold for a buffer of `capacity` records, None if it can or may."""
        return None

    def always(self, capacity: int) -> str | None:
        """Return why this always holds for a buffer of `capacity` records, None if it may not."""
        return None

    def __and__(self, other: ConditionLike) -> Condition:
        return _combine.All.of(self, other) if callable(other) else NotImplemented

    def __rand__(self, other: ConditionLike) -> Condition:
        return _combine.All.of(other, self) if callable(other) else NotImplemented

    def __or__(self, other: ConditionLike) -> Condition:
        return _combine.Any.of(self, other) if callable(other) else NotImplemented

    def __ror__(self, other: ConditionLike) -> Condition:
        return _combine.Any.of(other, self) if callable(other) else NotImplemented

    def __invert__(self) -> Condition:
        return _combine.Not(self)

    def __bool__(self) -> bool:
        raise TypeError(f"{self!r} has no truth of its own: join conditions with & | ~, not with `and`, `or`, `not`")


type ConditionFn = Callable[[Progress, Progress], Truth | tuple[Truth, str]]
"""A user's own condition: `(now, last) -> bool` or `(now, last) -> (bool, reason)`, pure."""

type ConditionLike = Condition | ConditionFn
"""What `&` and `|` take on either side."""

# At the end, since the combinations are conditions themselves and need the class above.
from pamiq_jax.conditions import combine as _combine  # noqa: E402
