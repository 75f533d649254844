"""The figure of `examples/dreamer.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from examples import figures


def draw(rewards: Sequence[float], seen: Any, dreams: Mapping[int, Any], lives: Sequence[Mapping[str, Any]]) -> Any:
    """Return a figure of how a life gets better, of a dream come true, and of the way up from everywhere.

    Args:
        rewards: of each step of the life that was learned from.
        seen: a new life `[T, 2]`.
        dreams: what was dreamed at some moments of it, `[K + 1, 2]`.
        lives: new lives with "observation" `[T, 3]`.
    """
    figure = figures.new_figure(
        "A pendulum learns to stand up in its dreams",
        "the policy follows the gradient of imagined returns through a model that it only reads; "
        "no step of the world is used to improve it directly",
        width=12,
        height=4.6,
    )
    left, middle, right = figure.subplots(1, 3)
    draw_life(left, rewards)
    draw_dreams(middle, seen, dreams)
    draw_phases(right, lives)
    return figure


def draw_life(axes: Any, rewards: Sequence[float], block: int = 100) -> None:
    """Draw rewards over a life: each step, and means of blocks."""
    means = np.reshape(rewards, (-1, block)).mean(axis=1)
    axes.plot(rewards, color=figures.BLUE, alpha=0.18, linewidth=0.7)
    axes.plot(block * (np.arange(len(means)) + 0.5), means, color=figures.BLUE, linewidth=2.2)
    axes.set(title="Reward of a step, in one life", xlabel="step")
    figures.tidy(axes)


def draw_dreams(axes: Any, seen: Any, dreams: Mapping[int, Any]) -> None:
    """Draw heights of the tip: as they came, and as they had been dreamed."""
    axes.plot(seen[:150, 0], color=figures.GRAY, linewidth=1.6, label="as it came")
    for index, (moment, dream) in enumerate(dreams.items()):
        label = "dreamed" if index == 0 else None
        axes.plot(moment + np.arange(len(dream)), dream[:, 0], color=figures.ORANGE, linewidth=2.2, label=label)
        axes.plot(moment, dream[0, 0], "o", color=figures.ORANGE, markersize=5)
    axes.set(title="Dreams are bolder than life", xlabel="step of a new life, 50 ms each", ylabel="height of the tip")
    axes.set(ylim=(-1.1, 1.25), yticks=(-1, 0, 1))
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    figures.tidy(axes)


def draw_phases(axes: Any, lives: Sequence[Mapping[str, Any]]) -> None:
    """Draw the ways of new lives through angle and speed."""
    for life in lives:
        cosine, sine, speed = np.moveaxis(life["observation"], -1, 0)
        angle = np.arctan2(sine, cosine)
        jumps = np.flatnonzero(np.abs(np.diff(angle)) > np.pi) + 1  # from one side of the picture to the other
        axes.plot(np.insert(angle, jumps, np.nan), np.insert(speed, jumps, np.nan), color=figures.BLUE, alpha=0.45)
        axes.plot(angle[0], speed[0], "o", color=figures.BLUE, markersize=4)
    axes.plot(0, 0, "o", color=figures.ORANGE, markersize=9)
    axes.annotate("upright and still", (0, 0), (0, 6.6), color=figures.ORANGE, ha="center", fontweight="bold")
    axes.set(title=f"{len(lives)} new lives, 10 s each", xlabel="angle", ylabel="speed in rad/s", xlim=(-np.pi, np.pi))
    axes.set_xticks([-np.pi, 0, np.pi], ["hanging", "upright", "hanging"])
    figures.tidy(axes, grid="both")
