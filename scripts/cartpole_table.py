"""Run the demo with several seeds, one after the other, and write the table of docs/design/cartpole.md.

.venv/bin/python scripts/cartpole_table.py
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "design" / "cartpole.md"
PICTURE = ROOT / "docs" / "images" / "learning_curve.png"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"

COLUMNS = (
    "seed", "solved", "seconds", "first action", "environment steps", "updates", "mean return",
    "inference p50 / p99 ms", "staleness p50 / p99 s", "torn", "dropped", "compiles", "load before",
)  # fmt: skip


def run(seed: int, directory: Path) -> dict[str, Any]:
    """Return the summary of one run, with the machine's load just before it."""
    load = os.getloadavg()[0]
    command = [sys.executable, "-m", "pamiq_jax", "demo", "cartpole", "--plain", "--seed", str(seed)]
    subprocess.run([*command, "--directory", str(directory)], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return {**json.loads((directory / "summary.json").read_text()), "load": load}


def row(summary: dict[str, Any]) -> str:
    """Return a run as a row of a Markdown table."""
    latency, staleness = summary["inference_latency_ms"], summary["staleness_seconds"]
    cells = (
        summary["seed"],
        "yes" if summary["solved"] else "no",
        f"{summary['seconds']:.1f}",
        f"{summary['first_action_seconds']:.1f}",
        f"{summary['environment_steps']:,}",
        summary["train_steps"],
        f"{summary['mean_return_last_100']:.1f}",
        f"{latency['p50']:.2f} / {latency['p99']:.2f}",
        f"{staleness['p50']:.3f} / {staleness['p99']:.3f}",
        summary["torn_reads"],
        summary["dropped_records"],
        summary["compiles_after_ready"],
        f"{summary['load']:.1f}",
    )
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def table(summaries: list[dict[str, Any]]) -> str:
    """Return the page's part that is made here."""
    seconds = [summary["seconds"] for summary in summaries]
    head = ["| " + " | ".join(COLUMNS) + " |", "|" + "---:|" * len(COLUMNS)]
    text = (
        f"{datetime.date.today().isoformat()}, {os.cpu_count()} CPU cores, no GPU: "
        f"{sum(summary['solved'] for summary in summaries)} of {len(summaries)} solved, "
        f"in a median of {statistics.median(seconds):.1f} s, at most {max(seconds):.1f} s.\n"
    )
    return "\n".join([text, *head, *map(row, summaries)]) + "\n"


def main() -> None:
    """Run, write the page, and keep the picture of the run in the middle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    seeds = range(parser.parse_args().seeds)
    with tempfile.TemporaryDirectory() as name:
        summaries: list[dict[str, Any]] = []
        for seed in seeds:
            summaries.append(run(seed, Path(name) / str(seed)))
            print(row(summaries[-1]), flush=True)
        middle = sorted(summaries, key=lambda summary: summary["seconds"])[len(summaries) // 2]
        shutil.copy(Path(name) / str(middle["seed"]) / "learning_curve.png", PICTURE)
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(before + BEGIN + "\n" + table(summaries) + "\n" + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
