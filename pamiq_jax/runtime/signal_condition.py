"""Saving when a signal comes, as a part of the policy that says when to save."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import NamedTuple, override

from pamiq_jax.conditions import All, Any, Condition, Not, Progress, Wake
from pamiq_jax.errors import InvalidValueError

_ONLY_SAVES = "on_signal is for launch(save=): no trainer waits for a signal"


@dataclass(frozen=True, repr=False)
class OnSignal(Condition):
    """What `on_signal` returns. No counter tells of a signal, so `test` is never true: `launch` installs a handler."""

    number: int

    @override
    def test(self, now: Progress, last: Progress) -> bool:
        return False

    @override
    def explain(self, now: Progress, last: Progress) -> str:
        return f"waits for {_name(self.number)}"

    @override
    def wake(self, now: Progress, last: Progress) -> Wake:
        return Wake()

    @override
    def never(self, capacity: int) -> str:
        return _ONLY_SAVES

    @override
    def __repr__(self) -> str:
        return f"on_signal({_name(self.number)})"


def on_signal(number: int) -> Condition:
    """Return the policy that saves when a signal comes, and goes on; for `launch(save=)`, alone or joined with `|`.

    The run is launched from the main thread, which alone can install a handler.

    Args:
        number: for example `signal.SIGUSR1`. SIGTERM saves and stops anyway; SIGINT stops.

    Raises:
        InvalidValueError: a signal that is taken, or none.

    Example:
        >>> import pamiq_jax as pj
        >>> pj.every_seconds(600) | on_signal(signal.SIGUSR1)
        every_seconds(600) | on_signal(signal.SIGUSR1)
    """
    if number in (signal.SIGTERM, signal.SIGINT) or number not in signal.valid_signals():
        taken = "a signal that is not taken"
        raise InvalidValueError("on_signal(number)", number, taken, "for example signal.SIGUSR1")
    return OnSignal(int(number))


class SavePolicy(NamedTuple):
    """When to save, apart by who decides it.

    Attributes:
        condition: asked between two chunks; None for nothing.
        signals: those that save.
    """

    condition: Condition | None
    signals: tuple[int, ...]


def parted(where: str, save: Condition | None) -> SavePolicy:
    """Return a policy with its signals apart.

    Args:
        where: the function whose argument `save` it is.
        save: the policy; None saves only when asked.

    Raises:
        InvalidValueError: a signal is joined with something else than `|`, or the rest can never hold.

    Example:
        >>> import pamiq_jax as pj
        >>> parted("launch", pj.every_seconds(600) | on_signal(signal.SIGUSR1)).condition
        every_seconds(600)
    """
    parts = save.parts if isinstance(save, Any) else () if save is None else (save,)
    signals = tuple(part.number for part in parts if isinstance(part, OnSignal))
    rest = tuple(part for part in parts if not isinstance(part, OnSignal))
    if any(map(_has_signal, rest)):
        raise InvalidValueError(f"{where}(save)", save, "signals joined with `|`", "write every_seconds(60) | ...")
    condition = Any(rest) if len(rest) > 1 else next(iter(rest), None)
    if condition is not None and condition.never(0):
        remedy = "it is asked of the whole system, which has no size: write min_new(1000), every_versions(10)"
        raise InvalidValueError(f"{where}(save)", save, "a condition that can hold", remedy)
    return SavePolicy(condition, signals)


def _has_signal(condition: Condition) -> bool:
    parts = condition.parts if isinstance(condition, All | Any) else ()
    inner = (condition.condition,) if isinstance(condition, Not) else parts
    return isinstance(condition, OnSignal) or any(map(_has_signal, inner))


def _name(number: int) -> str:
    return f"signal.{signal.Signals(number).name}" if number in {*signal.Signals} else str(number)
