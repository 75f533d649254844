"""Which states are worth keeping."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, SupportsIndex, override

from pamiq_jax.arguments import checked_integer
from pamiq_jax.errors import InvalidValueError

if TYPE_CHECKING:
    from pamiq_jax.checkpoint.manifest import StateInfo


class Retention(ABC):
    """A rule that says which of a directory's sound states to keep; several are joined with `|`.

    Subclass it for a rule of your own. Whatever a rule says, pruning keeps the newest sound state.
    """

    @abstractmethod
    def __call__(self, states: Sequence[StateInfo]) -> Sequence[StateInfo]:
        """Return those of the states, oldest first, that are kept."""

    def __or__(self, other: Retention) -> Retention:
        return any_of(self, other)


@dataclass(frozen=True)
class _Latest(Retention):
    count: int

    @override
    def __call__(self, states: Sequence[StateInfo]) -> Sequence[StateInfo]:
        return states[-self.count :]


@dataclass(frozen=True)
class _Every(Retention):
    nth: int

    @override
    def __call__(self, states: Sequence[StateInfo]) -> Sequence[StateInfo]:
        return [state for state in states if state.number % self.nth == 0]


@dataclass(frozen=True)
class _Best(Retention):
    metric: str
    sign: int
    count: int

    @override
    def __call__(self, states: Sequence[StateInfo]) -> Sequence[StateInfo]:
        measured = [(value, state) for state in states if (value := _metric(state, self.metric)) is not None]
        ranked = sorted(measured, key=lambda pair: (self.sign * pair[0], pair[1].number))
        return [state for _, state in ranked[-self.count :]]


@dataclass(frozen=True)
class _Any(Retention):
    rules: tuple[Retention, ...]

    @override
    def __call__(self, states: Sequence[StateInfo]) -> Sequence[StateInfo]:
        kept = {state.number for rule in self.rules for state in rule(states)}
        return [state for state in states if state.number in kept]


def latest_n(count: SupportsIndex) -> Retention:
    """Return the rule that keeps the newest `count` states.

    Args:
        count: at least 1.

    Example:
        >>> from pamiq_jax.checkpoint import StateInfo
        >>> states = [StateInfo(number, 0.0, {}, 0, 0) for number in range(1, 6)]
        >>> [state.number for state in latest_n(2)(states)]
        [4, 5]
    """
    return _Latest(checked_integer("latest_n(count)", count, least=1))


def every_nth(nth: SupportsIndex) -> Retention:
    """Return the rule that keeps each state whose number is a multiple of `nth`, for ever.

    Args:
        nth: at least 1.

    Example:
        >>> from pamiq_jax.checkpoint import StateInfo
        >>> states = [StateInfo(number, 0.0, {}, 0, 0) for number in range(1, 6)]
        >>> [state.number for state in every_nth(2)(states)]
        [2, 4]
    """
    return _Every(checked_integer("every_nth(nth)", nth, least=1))


def best(metric: str, mode: Literal["max", "min"], count: SupportsIndex = 1) -> Retention:
    """Return the rule that keeps the `count` states with the best `facts["metrics"][metric]`, newer ones if equal.

    A state that lacks the metric, or where it is NaN, is not kept by this rule.

    Args:
        metric: its name.
        mode: whether the largest or the smallest is best.
        count: at least 1.

    Example:
        >>> from pamiq_jax.checkpoint import StateInfo
        >>> returns = [10.0, 90.0, float("nan"), 40.0]
        >>> states = [StateInfo(1 + i, 0.0, {"metrics": {"return": x}}, 0, 0) for i, x in enumerate(returns)]
        >>> [state.number for state in best("return", "max")(states)]
        [2]
    """
    if not isinstance(metric, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidValueError("best(metric)", metric, "a metric's name", 'in a system it is "trainer.metric"')
    if mode not in ("max", "min"):
        raise InvalidValueError("best(mode)", mode, "'max' or 'min'")
    return _Best(metric, 1 if mode == "max" else -1, checked_integer("best(count)", count, least=1))


def any_of(*rules: Retention) -> Retention:
    """Return the rule that keeps what any of the rules keeps; the same as joining them with `|`.

    Example:
        >>> from pamiq_jax.checkpoint import StateInfo
        >>> states = [StateInfo(number, 0.0, {}, 0, 0) for number in range(1, 6)]
        >>> [state.number for state in any_of(latest_n(2), every_nth(2))(states)]
        [2, 4, 5]
    """
    if not rules:
        raise InvalidValueError("any_of(rules)", rules, "one rule at least", "latest_n(1) keeps the newest state")
    for rule in rules:
        if not isinstance(rule, Retention):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidValueError("any_of(rules)", rule, "a retention", "write latest_n(3), for example")
    return _Any(rules)


def _metric(state: StateInfo, name: str) -> float | None:
    metrics = state.facts.get("metrics")
    value = metrics.get(name) if isinstance(metrics, dict) else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    return value if is_number else None
