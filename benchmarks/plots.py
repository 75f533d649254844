"""The pictures of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.goals import distance, is_reached

type Row = Mapping[str, Any]
GOOD, MISSED, PLAIN = "#2a7f62", "#c8553d", "#4c6a92"


def _save(figure: Any, path: Path) -> str:
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
    return path.name


def draw_goals(rows: Sequence[Row], path: Path) -> str:
    """Draw how far each row is from its goal, and return the file's name."""
    shown = [(row, value) for row in rows if (value := distance(row)) is not None]
    figure, axes = plt.subplots(figsize=(8, 0.6 + 0.28 * max(1, len(shown))))
    for place, (row, value) in enumerate(reversed(shown)):
        axes.barh(place, value, color=GOOD if is_reached(row) else MISSED)
    axes.set_yticks(range(len(shown)), [str(row["name"]) for row, _ in reversed(shown)], fontsize=8)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("of its goal; left of the line it is reached")
    return _save(figure, path)


def draw_publish(row: Row, path: Path) -> str:
    """Draw the time to publish over the number of parameters."""
    times = {float(size): float(us) for size, us in row["microseconds_by_size"].items()}
    figure, axes = plt.subplots(figsize=(6, 3))
    axes.loglog(list(times), list(times.values()), "o-", color=PLAIN, label="ours")
    axes.plot([max(times)], [row["jitted_copy_of_largest_us"]], "s", color=MISSED, label="one jitted copy")
    axes.set_xlabel("parameters")
    axes.set_ylabel("us to publish")
    axes.legend()
    return _save(figure, path)


def draw_latency(rows: Sequence[Row], path: Path) -> str:
    """Draw p50 to p99.9 of acting, by what else goes on, ours beside the bare program."""
    figure, all_axes = plt.subplots(1, len(rows), figsize=(5 * len(rows), 3.4), sharey=True, squeeze=False)
    for axes, row in zip(all_axes[0], rows, strict=True):
        conditions = row["p50_p99_p999_ms"]
        for place, percentiles in enumerate(conditions.values()):
            for shift, side, color in ((-0.12, "ours", PLAIN), (0.12, "bare", "#999999")):
                values = percentiles[side]
                axes.plot([place + shift] * len(values), values, "o-", color=color, label=None if place else side)
        axes.set_xticks(range(len(conditions)), conditions, rotation=20)
        axes.set_yscale("log")
        axes.set_title(str(row["name"]).partition(": ")[2], fontsize=10)
    all_axes[0][0].set_ylabel("ms: p50, p99, p99.9")
    all_axes[0][0].legend()
    return _save(figure, path)


def draw_ticks(row: Row, path: Path) -> str:
    """Draw the host time of a tick over what a system is made of."""
    kinds = {"us_by_buffer_size": "records in the buffer", "us_by_models": "models", "us_by_trainers": "trainers"}
    figure, all_axes = plt.subplots(1, len(kinds), figsize=(11, 3), sharey=True)
    for axes, (key, title) in zip(all_axes, kinds.items(), strict=True):
        for kind, values in row[key].items():
            axes.plot([float(count) for count in values], list(values.values()), "o-", label=f"{kind}_tick")
        axes.set_xscale("log")
        axes.set_xlabel(title)
        axes.set_ylim(bottom=0)
    all_axes[0].set_ylabel("us a tick")
    all_axes[0].legend()
    return _save(figure, path)


def draw_all(rows: Sequence[Row], folder: Path) -> dict[str, str]:
    """Draw what the rows have figures for, and return the file names by what they show."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {"How far from the goal": draw_goals(rows, folder / "goals.png")}
    named = {str(row["name"]): row for row in rows}
    if "microseconds_by_size" in named.get("publish", {}):
        drawn["Publishing"] = draw_publish(named["publish"], folder / "publish.png")
    if latency := [row for row in rows if "p50_p99_p999_ms" in row]:
        drawn["From observation to action"] = draw_latency(latency, folder / "latency.png")
    if "us_by_models" in named.get("tick_overhead", {}):
        drawn["Host time of a tick"] = draw_ticks(named["tick_overhead"], folder / "ticks.png")
    return drawn
