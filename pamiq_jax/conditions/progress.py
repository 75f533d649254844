"""What a condition may know, what it answers, and when to ask it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

type Count = int | jax.Array
"""A Python int, or an int32 array `[]` when a condition is traced."""

type Truth = bool | jax.Array
"""A Python bool, or a bool array `[]` when a condition is traced."""

type Spans = Mapping[str, tuple[tuple[float, float], ...]]
"""By quantity, as "new records": ranges `(from, up to)` in order, the second not included. A word is one number."""


class Progress(NamedTuple):
    """How far a buffer and the trainer that watches it have come. The counters only grow, except `size`.

    A trainer that has not run yet has `Progress()`, all zero, as its last run.

    Attributes:
        size: records in the buffer now.
        seen: records that were made, including those that were dropped on the way.
        inserted: records that were put into the buffer, including those it has overwritten since.
        sampled: records that the trainer has drawn from the buffer.
        steps: training steps the trainer has taken.
        time_ms: milliseconds since the system started, pauses not counted.
        second_of_day: seconds since midnight, local time.
        busy_ms: milliseconds that the trainer has spent in its chunks.
        newest_ms: `time_ms` at which the newest record was inserted; 0 if there is none.
        forgiven: samples that were owed to the trainer and let go, up to the start of its last run. Only
            `Condition.settle` sets it, and conditions read it from the last run's progress.
        versions: snapshots that have been published after the first, by all trainers.

    Example:
        >>> Progress(size=jax.numpy.int32(3)).as_ints().size
        3
    """

    size: Count = 0
    seen: Count = 0
    inserted: Count = 0
    sampled: Count = 0
    steps: Count = 0
    time_ms: Count = 0
    second_of_day: Count = 0
    busy_ms: Count = 0
    newest_ms: Count = 0
    forgiven: Count = 0
    versions: Count = 0

    def as_ints(self) -> Progress:
        """Return the same counters as Python ints."""
        return Progress(*map(int, self))


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


def first_change(wakes: Sequence[Wake], of_all: bool) -> Wake:
    """Return when the first of several answers can change, or `of_all` when the last of them can have.

    Example:
        >>> first_change([Wake(records=5), Wake(records=3, milliseconds=100)], of_all=False)
        Wake(records=3, milliseconds=100)
    """
    columns = [[hint for hint in column if hint is not None] for column in zip(*wakes, strict=True)]
    latest = Wake(*(max(hints, default=None) for hints in columns))
    # A thread wakes at whichever comes first, so `latest` is too late where one part needs 10 records or 1 s and
    # another 5 records or 3 s: 5 records and 1 s do. It is safe only if a single part rules out all that is earlier.
    safe = any(all(hint in (None, most) for hint, most in zip(wake, latest, strict=True)) for wake in wakes)
    return latest if of_all and safe else Wake(*(min(hints, default=None) for hints in columns))


def larger(first: Count, second: Count) -> Count:
    """Return the larger of two counts: an int for two ints, which no device is asked for, else an array."""
    return max(first, second) if isinstance(first, int) and isinstance(second, int) else jnp.maximum(first, second)
