"""Run ours and the reference by turns, and say what came out in one JSON line."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Callable
from typing import NamedTuple

import jax


class Comparison(NamedTuple):
    """What a benchmark measured.

    Attributes:
        ours: one figure a run.
        reference: one figure a run, taken by turns with ours.
    """

    ours: list[float]
    reference: list[float]


def alternate(ours: Callable[[], float], reference: Callable[[], float], *, runs: int) -> Comparison:
    """Return the figures of `runs` runs of each, by turns, after one of each that does not count."""
    ours(), reference()
    pairs = [(ours(), reference()) for _ in range(runs)]
    return Comparison([pair[0] for pair in pairs], [pair[1] for pair in pairs])


def report(
    name: str,
    comparison: Comparison,
    *,
    reference_name: str,
    unit: str,
    goal: str,
    more: dict[str, object] | None = None,
) -> dict[str, object]:
    """Return the row of a benchmark: medians, their ratio, and the spread.

    A benchmark whose goal is about `ours` alone may have no figures for the reference; the row then has no ratio.
    """
    ours = statistics.median(comparison.ours)
    reference = statistics.median(comparison.reference) if comparison.reference else None
    return {
        "name": name,
        "ours": ours,
        "reference": reference,
        "reference_name": reference_name,
        "ratio": ours / reference if reference else None,
        "unit": unit,
        "goal": goal,
        "runs": len(comparison.ours),
        "device": f"{jax.devices()[0].device_kind} ({platform.machine()})",
        "ours_min_max": [min(comparison.ours), max(comparison.ours)],
        "reference_min_max": [min(comparison.reference), max(comparison.reference)] if reference is not None else None,
        **(more or {}),
    }


def rounded(value: object) -> object:
    """Return a figure, or whatever is made of figures, with five significant digits."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, list | tuple) else value


def print_row(row: dict[str, object]) -> None:
    """Print a row as one line of JSON."""
    print(json.dumps(rounded(row)), flush=True)
