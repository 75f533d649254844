"""The figure of `examples/replicas.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm

from examples import figures


def ancestors(parents: np.ndarray, member: int) -> np.ndarray:
    """Return from whom a member of the last generation descends, `[generations]`, itself included.

    Args:
        parents: `[generations, N]`, set at the end of each.
        member: its number.
    """
    line = [member]
    for generation in reversed(range(len(parents) - 1)):
        line.append(int(parents[generation][line[-1]]))
    return np.array(line[::-1])


def draw(history: Mapping[str, np.ndarray], alone: Mapping[str, np.ndarray], accuracy: float) -> Any:
    """Return a figure of how the losses fall, and of the family trees of both hyper-parameters.

    Args:
        history: of the population, `[generations, N]`.
        alone: of the same members without selection.
        accuracy: of the best one, on digits that nobody has seen.
    """
    generations, size = history["loss"].shape
    figure = figures.new_figure(
        f"{size} trainers as one program, that find their own hyper-parameters",
        "after each run the worst quarter become copies of the best quarter, with slightly other hyper-parameters; "
        f"in the end the best reads {accuracy:.1%} of unseen digits right",
        width=11.5,
        height=4.6,
    )
    losses, *trees = figure.subplots(1, 3)
    draw_losses(losses, history["loss"], alone["loss"])
    norm = LogNorm(0.05, 2.3)
    best = ancestors(history["parents"], int(np.argmin(history["loss"][-1])))
    for axes, name in zip(trees, ("learning_rate", "noise"), strict=True):
        draw_family(axes, history, name, best, norm)
    for axes in (losses, *trees):
        figures.tidy(axes)
        axes.set(xlim=(0, generations - 1), xlabel="run", yscale="log")
    colors = ScalarMappable(norm, "viridis_r")
    bar = figure.colorbar(colors, ax=trees[-1], label="validation loss", ticks=[0.05, 0.1, 0.2, 0.5, 1, 2])
    bar.ax.yaxis.set_major_formatter("{x:g}")
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    return figure


def draw_losses(axes: Any, losses: np.ndarray, alone: np.ndarray) -> None:
    """Draw a line for each member, with selection and without."""
    axes.plot(alone, color=figures.GRAY, alpha=0.35, linewidth=1)
    axes.plot(losses, color=figures.BLUE, alpha=0.5, linewidth=1)
    axes.set(ylim=(0.03, 4), title="validation loss of each member")
    style: Any = {"transform": axes.transAxes, "ha": "right", "va": "center", "fontweight": "bold"}
    axes.text(0.97, 0.96, "left alone", color=figures.GRAY, **style)
    axes.text(0.97, 0.05, "selected and cloned", color=figures.BLUE, **style)


def draw_family(axes: Any, history: Mapping[str, np.ndarray], name: str, best: np.ndarray, norm: LogNorm) -> None:
    """Draw a line from each member to what became of it, and a thick one through the ancestors of the best."""
    values, parents = history[name], history["parents"][:-1]
    from_there = np.take_along_axis(values[:-1], parents, axis=1)
    runs = np.broadcast_to(np.arange(len(parents))[:, None], parents.shape)
    ends = np.stack([np.stack([runs, from_there], -1), np.stack([runs + 1, values[1:]], -1)], axis=-2)
    lines = LineCollection(ends.reshape(-1, 2, 2), cmap="viridis_r", norm=norm, linewidth=1.2)
    lines.set_array(history["loss"][1:].ravel())
    axes.add_collection(lines)
    axes.plot(values[np.arange(len(values)), best], color=figures.ORANGE, linewidth=2.2)
    axes.set_title(name.replace("_", " "))
    style: Any = {"transform": axes.transAxes, "ha": "right", "va": "center", "fontweight": "bold"}
    axes.text(0.97, 0.96, "ancestors of the best", color=figures.ORANGE, **style)
