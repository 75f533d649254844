"""The figure of `examples/forward_dynamics.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from examples import figures


def draw(seen: Any, futures: Mapping[int, Any], errors: Mapping[str, Any]) -> Any:
    """Return a figure of imagined futures on a real life, and of how far they are off on average.

    Args:
        seen: a life, `[T, 2]`.
        futures: what is imagined `[K, 2]` at some moments of it.
        errors: by forecast, distances `[K]` by how far ahead.
    """
    subtitle = (
        f"10 steps ahead the model is {errors['model'][9]:.2f} pendulum lengths off, "
        f"persistence {errors['persistence'][9]:.2f}; it sees angles only and infers the speed from its carry"
    )
    figure = figures.new_figure("A pendulum, imagined from what the model remembers", subtitle, width=11)
    left, right = figure.subplots(1, 2, width_ratios=(1.7, 1))
    draw_futures(left, seen, futures)
    draw_errors(right, errors)
    for axes in (left, right):
        figures.tidy(axes)
    return figure


def draw_futures(axes: Any, seen: Any, futures: Mapping[int, Any], shown: int = 260) -> None:
    """Draw heights of the tip: as they were, and as they were imagined."""
    axes.plot(seen[:shown, 0], color=figures.GRAY, linewidth=1.2, label="real")
    for index, (moment, future) in enumerate(futures.items()):
        heights = [seen[moment, 0], *future[:, 0]]
        label = f"imagined, {len(future)} steps" if index == 0 else None
        axes.plot(moment + np.arange(len(heights)), heights, color=figures.ORANGE, linewidth=2, label=label)
        axes.plot(moment, heights[0], "o", color=figures.ORANGE, markersize=5)
    axes.set(title="Height of the tip", xlabel="step of a life it has not learned from")
    axes.set(xlim=(0, shown), ylim=(-1.25, 1.5), yticks=(-1, 0, 1))
    axes.legend(frameon=False, fontsize=9, loc="upper right", ncols=2)  # above all curves


def draw_errors(axes: Any, errors: Mapping[str, Any]) -> None:
    """Draw distances by how far ahead a forecast is."""
    colors = (figures.ORANGE, figures.PURPLE, figures.GRAY)
    for (name, error), color in zip(errors.items(), colors, strict=True):
        axes.plot(np.arange(1, len(error) + 1), error, color=color, linewidth=2, label=name)
    axes.set(title="Distance from the real tip", xlabel="steps ahead", ylabel="pendulum lengths")
    axes.set_ylim(0, 1.4 * max(error.max() for error in errors.values()))
    axes.legend(frameon=False, fontsize=9, loc="upper right")  # above all curves
