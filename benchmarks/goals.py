"""Whether a row reaches its goal."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

_GOAL = re.compile(r"(?P<figure>ours )?(?P<relation><=|>=|<|>|==) (?P<bound>[\d.,]+)")
_RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "==": operator.eq,
}


def parse_goal(goal: str) -> tuple[str, str, float]:
    """Return which figure of a row a goal is about, the relation and the bound.

    Raises:
        ValueError: it is no goal.
    """
    match = _GOAL.match(goal)
    if match is None:
        raise ValueError(f"the goal {goal!r} is not like '<= 1.2', or 'ours == 0' where it is not about the ratio")
    return ("ours" if match["figure"] else "ratio"), match["relation"], float(match["bound"].replace(",", ""))


def headline(row: Mapping[str, Any]) -> float | None:
    """Return the figure that a row's goal is about; None if it could not be measured."""
    return row[parse_goal(str(row["goal"]))[0]]


def is_reached(row: Mapping[str, Any]) -> bool | None:
    """Return whether a row reaches its goal; None if that could not be measured."""
    _, relation, bound = parse_goal(str(row["goal"]))
    figure = headline(row)
    return None if figure is None else _RELATIONS[relation](figure, bound)


def distance(row: Mapping[str, Any]) -> float | None:
    """Return the figure over its bound, turned so that 1 or less reaches the goal; None without either."""
    _, relation, bound = parse_goal(str(row["goal"]))
    figure = headline(row)
    if not figure or not bound:
        return None
    return bound / figure if relation in (">", ">=") else figure / bound


def beside(row: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    """Return the further figures of a row that have a goal of their own: `(name, figure, goal)`.

    They are those named "x_goal", for the figure "x" or, of several, the first whose name begins with it.
    """
    found: list[tuple[str, Any, str]] = []
    for key, goal in row.items():
        if key.endswith("_goal"):
            begin = key.removesuffix("_goal")
            name = next((name for name in row if name.startswith(begin) and not name.endswith("_goal")), begin)
            found.append((name, row.get(name), str(goal)))
    return found
