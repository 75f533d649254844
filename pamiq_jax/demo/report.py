"""What a run of the demo leaves behind: `summary.json` and `learning_curve.png`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pamiq_jax.demo.cartpole import SOLVED_RETURN
from pamiq_jax.demo.frame import Frame
from pamiq_jax.demo.recorder import Point
from pamiq_jax.metrics import LatencyHistogram

_BLUE, _ORANGE, _GRAY = "#4c78a8", "#e4572e", "#8a8f98"


def summarize(frame: Frame, error: str | None = None) -> dict[str, Any]:
    """Return the run in numbers; None stands for what there was nothing to measure of.

    "seconds" counts from `launch` until the task was solved, or the end: compiling is part of it.

    Args:
        frame: the last moment.
        error: what went wrong, if anything did.
    """
    observed, status = frame.observed, frame.status
    statistics, trainer = observed.statistics, frame.trainer
    is_solved = observed.solved_seconds is not None
    summary = {
        "solved": is_solved,
        "seconds": _rounded(observed.solved_seconds if is_solved else frame.seconds),
        "first_action_seconds": _rounded(observed.first_action_seconds),
        "environment_steps": observed.environment_steps,
        "episodes": statistics.finished,
        "train_steps": 0 if trainer is None else trainer.steps,
        "versions_published": status.version,
        "mean_return_last_100": _rounded(statistics.mean),
        "best_mean_return_100": _rounded(statistics.best_mean),
        "inference_latency_ms": _percentiles(status.inference.latency, 1000.0),
        "staleness_seconds": _percentiles(status.inference.staleness, 1.0),
        "compiles_after_ready": status.compiles_after_ready,
        "torn_reads": observed.torn_reads,
        "dropped_records": frame.dropped,
        "seed": frame.seed,
    }
    return summary if error is None else {**summary, "error": error}


def _percentiles(histogram: LatencyHistogram, factor: float) -> dict[str, float | None]:
    return {f"p{percent}": _rounded(histogram.percentile(percent) * factor) for percent in (50, 99)}


def _rounded(value: float | None) -> float | None:
    # JSON has no NaN.
    return None if value is None or math.isnan(value) else round(value, 4)


def write_report(directory: Path, summary: dict[str, Any], curve: Sequence[Point]) -> None:
    """Write both files.

    Args:
        directory: an existing one.
        summary: from `summarize`.
        curve: the finished episodes.
    """
    (directory / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    draw_learning_curve(directory / "learning_curve.png", summary, curve)


def draw_learning_curve(path: Path, summary: dict[str, Any], curve: Sequence[Point]) -> None:
    """Draw each episode's return as a dot and their mean as a line.

    Args:
        path: of the picture.
        summary: for the title.
        curve: the finished episodes.
    """
    # Only here: matplotlib takes a good part of a second to import, and the agent should act at once.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=160, layout="constrained")
    axes: Any = figure.subplots()
    seconds = [point.seconds for point in curve]
    axes.axhline(SOLVED_RETURN, color=_GRAY, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(
        seconds,
        [point.episode_return for point in curve],
        ".",
        color=_BLUE,
        alpha=0.45,
        markersize=6,
        mew=0,
        label="an episode",
    )
    axes.plot(seconds, [point.mean_return for point in curve], color=_ORANGE, linewidth=2.5)
    _annotate(axes, summary, curve)
    axes.set(xlabel="seconds since launch, compiling included", ylabel="return of an episode")
    axes.set(xlim=(0, max(1.0, summary["seconds"] * 1.02)), ylim=(0, 525), yticks=range(0, 501, 100))
    axes.set_title(_title(summary), loc="left", fontsize=12, fontweight="bold", pad=26)
    axes.text(0, 1.03, _subtitle(summary), transform=axes.transAxes, color=_GRAY, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GRAY)
    axes.tick_params(color=_GRAY)
    axes.grid(axis="y", color=_GRAY, alpha=0.15)
    figure.savefig(path)


def _annotate(axes: Any, summary: dict[str, Any], curve: Sequence[Point]) -> None:
    first = summary["first_action_seconds"] or summary["seconds"]
    axes.axvspan(0, first, color=_GRAY, alpha=0.1, linewidth=0)
    axes.annotate("compiling", (first / 2, 250), rotation=90, ha="center", va="center", color=_GRAY, fontsize=9)
    left: Any = {"xycoords": ("axes fraction", "data"), "fontsize": 9}
    axes.annotate(f"{SOLVED_RETURN:.0f} solves it", (0.005, SOLVED_RETURN - 8), va="top", color=_GRAY, **left)
    axes.annotate("● an episode", (0.005, SOLVED_RETURN + 6), va="bottom", color=_BLUE, **left)
    if curve:
        middle = curve[len(curve) * 3 // 4]
        style: Any = {"textcoords": "offset points", "fontsize": 10, "fontweight": "bold"}
        axes.annotate(
            "mean of the last 100", (middle.seconds, middle.mean_return), (10, -14), ha="left", color=_ORANGE, **style
        )


def _title(summary: dict[str, Any]) -> str:
    if summary["solved"]:
        return f"CartPole-v1 solved in {summary['seconds']:.1f} s, learning while acting"
    return f"CartPole-v1, {summary['seconds']:.1f} s of learning while acting"


def _subtitle(summary: dict[str, Any]) -> str:
    p50 = summary["inference_latency_ms"]["p50"] or math.nan
    return (
        f"{summary['environment_steps']:,} environment steps, {summary['versions_published']:,} published versions, "
        f"inference p50 {p50:.2f} ms, {summary['torn_reads']} torn reads, seed {summary['seed']}"
    )
