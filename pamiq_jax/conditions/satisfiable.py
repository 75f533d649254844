"""Refuse a condition that would make its trainer wait for ever."""

from __future__ import annotations

from pamiq_jax.conditions.base import Condition
from pamiq_jax.errors import UnsatisfiableConditionError


def check_satisfiable(condition: Condition, capacity: int, name: str) -> None:
    """Raise if `condition` can never hold for a buffer of `capacity` records.

    Finds what a single part can tell of itself, not that two parts contradict each other.

    Args:
        condition: when the trainer should run.
        capacity: how many records the buffer holds at most.
        name: whose condition it is, for the message: `trainer 'vae'`.

    Raises:
        UnsatisfiableConditionError: if it can never hold.

    Example:
        >>> from pamiq_jax.conditions import min_size
        >>> check_satisfiable(min_size(100), capacity=100, name="trainer 'vae'")
    """
    if reason := condition.never(capacity):
        raise UnsatisfiableConditionError(
            f"{name} would wait for ever for {condition!r}: {reason}; "
            "give it another condition, or its buffer a larger capacity"
        )
