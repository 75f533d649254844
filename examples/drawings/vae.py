"""The figure of `examples/vae.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from examples import figures
from examples.digits import PIXELS, tile


def draw(
    errors: list[float],
    error_and_blind: tuple[float, float],
    originals: np.ndarray,
    reconstructions: Any,
    samples: Any,
    steps_per_run: int,
) -> Any:
    """Return a figure of how the error falls, of held-out digits as they come back, and of samples.

    Args:
        errors: of each run.
        error_and_blind: the held-out error in the end, and that of the mean image.
        originals: digits `[N, 64]` in rows of ten.
        reconstructions: the same, as they come back.
        samples: decoded random codes, in rows of ten.
        steps_per_run: steps in a run.
    """
    error, blind = error_and_blind
    figure = figures.new_figure(
        f"Digits it has never seen come back with 1/{blind / error:.0f} of the mean image's error",
        f"a variational autoencoder of {PIXELS} pixels; while it learned, {len(errors):,} versions of its encoder "
        "were published",
        height=5.05,
    )
    left, right = figure.subfigures(1, 2, width_ratios=(1.0, 1.15))
    _draw_errors(left.subplots(), errors, blind, steps_per_run)
    above, below = right.subplots(2, 1)
    pairs = np.stack([np.asarray(images).reshape(-1, 10, PIXELS) for images in (originals, reconstructions)], axis=1)
    for axes, title, images in (
        (above, "Held-out digits, and below each what came back", pairs.reshape(-1, PIXELS)),
        (below, "Random codes, decoded: digits that nobody wrote", samples),
    ):
        axes.imshow(tile(images, 10), cmap="Greys", vmin=0, vmax=1)
        axes.set_title(title, fontsize=10.5, fontweight="bold")
        axes.set_axis_off()
    return figure


def _draw_errors(axes: Any, errors: list[float], blind: float, steps_per_run: int) -> None:
    steps = steps_per_run * np.arange(1, len(errors) + 1)
    axes.semilogy(steps, errors, color=figures.BLUE, linewidth=2)
    for height, text in ((blind, "the mean image"), (blind / 3, "a third of it")):
        axes.axhline(height, color=figures.GRAY, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(text, (steps[-1], height * 1.05), ha="right", color=figures.GRAY, fontsize=9)
    axes.set(title="Squared error of a pixel", xlabel="training steps", xlim=(0, steps[-1]))
    axes.set_yticks([0.02, 0.05, 0.1], ["0.02", "0.05", "0.1"])
    axes.minorticks_off()
    figures.tidy(axes)
