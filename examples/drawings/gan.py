"""The figure of `examples/gan.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from examples import figures
from examples.digits import SIDE, tile

NAMES = {"whole/right": ("sees the whole", figures.BLUE), "corners/right": ("sees the corners", figures.ORANGE)}


def draw(
    gallery: Mapping[int, np.ndarray],
    drawings: np.ndarray,
    history: Sequence[tuple[str, Mapping[str, Any]]],
    reached: tuple[float, float],
    possible: tuple[float, float],
) -> Any:
    """Return a figure of how the same ideas were drawn over time, of what is drawn in the end, and of the game.

    Args:
        gallery: drawings of the same ideas `[N, 64]`, by version of the generator.
        drawings: of the last version, of other ideas.
        history: of the metrics.
        reached: precision and recall of the last version.
        possible: precision and recall of real digits.
    """
    (precision, recall), (best_precision, best_recall) = reached, possible
    figure = figures.new_figure(
        "A generator learns to draw digits from two critics, with which it takes turns",
        f"{precision:.0%} of the drawings lie among held-out digits, {recall:.0%} of the held-out digits "
        f"among drawings; of other real digits it would be {best_precision:.0%} and {best_recall:.0%}",
        width=11.5,
        height=4.9,
    )
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.0, 1.1, 1.0))
    _draw_time(left, gallery)
    middle.imshow(tile(drawings[:100], 10), cmap="Greys", vmin=0, vmax=1)
    middle.set_title("What it draws in the end", fontsize=10.5, fontweight="bold")
    middle.set_axis_off()
    _draw_game(right, history)
    return figure


def _draw_time(axes: Any, gallery: Mapping[int, np.ndarray]) -> None:
    versions = list(gallery)
    chosen = [versions[place] for place in np.unique(np.geomspace(1, len(versions), 9).astype(int) - 1)]
    axes.imshow(tile(np.concatenate([gallery[version][:8] for version in chosen]), 8), cmap="Greys", vmin=0, vmax=1)
    axes.set_yticks((SIDE + 1) * np.arange(len(chosen)) + (SIDE - 1) / 2, [f"{version:,}" for version in chosen])
    axes.set(xticks=[], ylabel="version of the generator")
    axes.set_title("Eight ideas, as they were drawn", fontsize=10.5, fontweight="bold")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=9)


def _draw_game(axes: Any, history: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    for metric, (name, color) in NAMES.items():
        values = 100 * np.array([float(metrics[metric]) for _, metrics in history])
        smooth = np.convolve(values, np.ones(9) / 9, mode="valid")
        axes.plot(np.arange(len(smooth)) + 5, smooth, color=color, linewidth=2, label=name)
    axes.axhline(50, color=figures.GRAY, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate("guessing", (len(history), 51), ha="right", color=figures.GRAY, fontsize=9)
    axes.set(title="What the critics get right, %", xlabel="version of the generator", ylim=(40, 100))
    axes.set_xlim(0, len(history))
    axes.legend(frameon=False, loc="upper right", labelcolor="linecolor", handlelength=0, prop={"weight": "bold"})
    figures.tidy(axes)
