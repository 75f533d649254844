"""How the figures of the examples look, and where they go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
RUNS, DOCS = ROOT / "runs" / "examples", ROOT / "docs" / "images" / "examples"
BLUE, ORANGE, GREEN, PURPLE, GRAY = "#4c78a8", "#e4572e", "#54a24b", "#9467bd", "#8a8f98"


def new_figure(title: str, subtitle: str = "", *, width: float = 9.0, height: float = 4.5) -> Figure:
    """Return an empty figure with a headline; add axes with `figure.subplots(...)` and `tidy` them.

    Args:
        title: what the figure shows, as a sentence.
        subtitle: with which numbers.
        width: inches.
        height: inches.
    """
    figure = Figure(figsize=(width, height), dpi=160, layout="constrained", facecolor="white")
    above = (0.22 + 0.3 + (0.22 if subtitle else 0.0)) / height
    figure.get_layout_engine().set(rect=(0.005, 0.0, 0.99, 1.0 - above), w_pad=0.08, h_pad=0.08)
    figure.text(0.015, 1 - 0.16 / height, title, va="top", fontsize=13, fontweight="bold")
    figure.text(0.015, 1 - 0.43 / height, subtitle, va="top", fontsize=9.5, color=GRAY)
    return figure


def tidy(axes: Any, *, grid: str | None = "y") -> None:
    """Leave of some axes what is needed: no box, gray ticks, a faint grid.

    Args:
        axes: of matplotlib.
        grid: along which axis lines are drawn: "x", "y", "both" or None.
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRAY)
    axes.tick_params(color=GRAY, labelsize=9)
    axes.title.set(fontsize=10.5, fontweight="bold")
    if grid:
        axes.grid(axis=grid, color=GRAY, alpha=0.15)


def save(figure: Figure, name: str, directory: Path = RUNS) -> Path:
    """Write a figure and return its path.

    Args:
        figure: from `new_figure`.
        name: of the example.
        directory: an existing or new one; `DOCS` has those that the documentation shows.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.png"
    figure.savefig(path)
    return path
