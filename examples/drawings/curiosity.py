"""The figure of `examples/curiosity.py`."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from matplotlib.colors import LogNorm

from examples import figures


class Visits(Protocol):
    """What was visited: see `examples/curiosity.py`."""

    def counts(self, cells: int = 30) -> Any:
        """Return visits of each cell."""
        ...

    def shares(self, cells: int = 30) -> Any:
        """Return shares of visited cells over time."""
        ...


def draw(curious: Visits, random: Visits) -> Any:
    """Return a figure of where both agents have been, and of how that grew."""
    shares = {"curious": curious.shares(), "random": random.shares()}
    subtitle = (
        f"eight cars, {len(shares['curious']):,} ticks each, live and without any reward but surprise: "
        f"{shares['curious'][-1]:.0%} of all cells visited, against {shares['random'][-1]:.0%} at random"
    )
    figure = figures.new_figure("A curious agent sees more of its world", subtitle, width=12, height=4.6)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 0.85))
    norm = LogNorm(1, max(curious.counts().max(), random.counts().max()))
    for axes, name, visits in ((left, "random", random), (middle, "curious", curious)):
        axes.set(title=f"Visits of the {name} agent", xlabel="position")
        image = draw_visits(axes, visits, norm)
    left.set_ylabel("speed")
    left.annotate("bottom of the valley", (-0.5, -0.066), color=figures.GRAY, fontsize=8.5)
    figure.colorbar(image, ax=(left, middle), pad=0.02, aspect=30).outline.set_visible(False)
    for (name, share), color in zip(shares.items(), (figures.ORANGE, figures.GRAY), strict=True):
        right.plot(100 * share, color=color, linewidth=2.2)
        right.annotate(
            name, (0.98 * len(share), 100 * share[-1]), (0, 5), textcoords="offset points", ha="right", color=color
        )
    right.set(title="Cells visited so far, in %", xlabel="tick", ylim=(0, 115 * shares["curious"][-1]))
    figures.tidy(right)
    return figure


def draw_visits(axes: Any, visits: Visits, norm: Any) -> Any:
    """Draw how often each cell was visited; cells that never were stay white."""
    counts = np.ma.masked_equal(visits.counts().T, 0)
    image = axes.imshow(
        counts, origin="lower", extent=(-1.2, 0.6, -0.07, 0.07), aspect="auto", norm=norm, cmap="viridis"
    )
    axes.axvline(-0.5236, color=figures.GRAY, linewidth=0.8, linestyle=":")
    axes.set(yticks=(-0.07, 0, 0.07))
    figures.tidy(axes, grid=None)
    return image
