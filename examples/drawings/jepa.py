"""The figure of `examples/jepa.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from sklearn.manifold import TSNE

from examples import figures
from examples.digits import Digits

COLORS = {"JEPA": figures.BLUE, "PCA": figures.ORANGE, "untrained": figures.GRAY}


def draw(
    scores: Mapping[int, Sequence[float]],
    features: Mapping[str, np.ndarray],
    test: Digits,
    deviations: list[float],
    steps_per_run: int,
) -> Any:
    """Return a figure of how well digits are read from the features, and of maps of the features.

    Args:
        scores: accuracies of the embeddings in `COLORS`, by how many labels of each digit there were.
        features: of the test digits `[N, F]`, by embedding.
        test: the test digits.
        deviations: the least deviation of a feature, in each run.
        steps_per_run: steps in a run.
    """
    size = features["JEPA"].shape[1]
    figure = figures.new_figure(
        "Features learned by guessing what is hidden tell digits apart better than principal components",
        f"{size} numbers for a digit, learned without labels; all digits here were held out; "
        "the maps are drawn by t-SNE",
        width=11.5,
        height=4.9,
    )
    left, right = figure.subfigures(1, 2, width_ratios=(1.0, 2.3))
    above, below = left.subplots(2, 1, height_ratios=(2.0, 1.0))
    _draw_scores(above, scores)
    _draw_deviations(below, deviations, steps_per_run)
    for axes, (name, title) in zip(
        right.subplots(1, 2), {"PCA": "principal components", "JEPA": "JEPA's target"}.items(), strict=True
    ):
        _draw_map(axes, features[name], test.labels)
        axes.set_title(f"A map of the features: {title}", fontsize=10.5, fontweight="bold", color=COLORS[name])
    return figure


def _draw_scores(axes: Any, scores: Mapping[int, Sequence[float]]) -> None:
    counts = list(scores)
    for (name, color), values in zip(COLORS.items(), zip(*scores.values(), strict=True), strict=True):
        axes.semilogx(counts, 100 * np.array(values), "o-", color=color, linewidth=2, markersize=4, label=name)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set(title="Digits read right by a linear probe, %", xlabel="labels of each digit")
    axes.legend(frameon=False, loc="lower right", labelcolor="linecolor", handlelength=0, prop={"weight": "bold"})
    figures.tidy(axes)


def _draw_deviations(axes: Any, deviations: list[float], steps_per_run: int) -> None:
    steps = steps_per_run * np.arange(1, len(deviations) + 1)
    axes.plot(steps, deviations, color=figures.BLUE, linewidth=2)
    axes.set(title="No collapse: least deviation of a feature", xlabel="training steps")
    axes.set(xlim=(0, steps[-1]), ylim=(0, 1.15 * max(deviations)))
    figures.tidy(axes)


def _draw_map(axes: Any, features: np.ndarray, labels: np.ndarray) -> None:
    whole = (features - features.mean(axis=0, keepdims=True)) / features.std(axis=0, keepdims=True)
    places = TSNE(perplexity=25, init="pca", random_state=0).fit_transform(whole)
    colors = matplotlib.colormaps["tab10"]
    for place, label in zip(places, labels, strict=True):
        axes.text(*place, str(label), color=colors(label), fontsize=7.5, ha="center", va="center", fontweight="bold")
    low, high = places.min(axis=0), places.max(axis=0)
    axes.set(xlim=(low[0] - 2, high[0] + 2), ylim=(low[1] - 2, high[1] + 2))
    axes.set_axis_off()
