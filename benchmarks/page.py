"""docs/benchmarks.md, written from rows: what was measured, where, with what, and why a figure misses its goal."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.causes import cause
from benchmarks.goals import beside, headline, is_reached
from benchmarks.harness import rounded

type Row = Mapping[str, Any]
ROOT = Path(__file__).parents[1]
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint")
_CASES = ("chunk_ms", "batch_size", "data", "poles")
"""What tells rows of one name from each other."""
_HEADLINES = {"name", "ours", "reference", "reference_name", "ratio", "unit", "goal", "runs", "device"}
_INTRODUCTION = """# Speed, measured

Written by `make bench`; do not edit. One row a question: `python -m benchmarks NAME` measures it again, `--quick` a
smaller one of the same kind. Both sides of a row are run at least five times, by turns, after one run that does not
count; the figures are medians, with the least and the greatest. A reference is the shortest good program that does the
same. Not by turns are `publish` (size after size), `idle_cpu` (a peer after ours), `memory` (whose reference is
computed: what must be held; programs' temporaries are not counted), `pause` (whose reference is a chunk of the same
windows) and `startup: launch to first action` (where the second start needs the first). What stands under "Further
figures" is measured less often: peers after ours, the side conditions of `inference_latency` twice (while saving, only
ours saves: the bare program has nothing to save with).

`ratio` is ours over the reference; of `publish` and `tick_overhead` both are ours, the slowest and the fastest case.
`memory` is of a run that saves nothing. What misses its goal says why below. A row marked "quick" was measured small,
to see that it works: there is little to be read from it.
"""


class Machine(NamedTuple):
    """Where and when rows were measured."""

    date: str
    processor: str
    cores: int
    load: str
    versions: str
    peers: str


def this_machine(peers: str) -> Machine:
    """Return what can be said about this machine.

    Args:
        peers: what is known about the peers' environment.
    """
    versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES if _is_installed(name)]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"
    return Machine(
        datetime.date.today().isoformat(),
        _processor(),
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        load,
        ", ".join([f"Python {platform.python_version()}", *versions]),
        peers,
    )


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _text(value: Any) -> str:
    value = rounded(value)
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return str(value)


def _spread(row: Row, side: str) -> str:
    limits = row.get(f"{side}_min_max")
    return _text(row[side]) if limits is None else f"{_text(row[side])} ({_text(limits[0])} to {_text(limits[1])})"


def _verdict(row: Row) -> str:
    reached = is_reached(row)
    return "not measured" if reached is None else "yes" if reached else "**no**"


def _table(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| name | ours | reference | unit | ratio | goal | reached |",
        "|---|---:|---:|---|---:|---|---|",
    ]
    for row in rows:
        reference = f"{_spread(row, 'reference')}, {row['reference_name']}"
        name = _label(row) + (" (quick)" if row.get("is_quick") else "")
        cells = (name, _spread(row, "ours"), reference, row["unit"], _text(row["ratio"]), row["goal"])
        lines.append(f"| {' | '.join(map(str, cells))} | {_verdict(row)} |")
    return lines


def _misses(rows: Sequence[Row]) -> list[str]:
    lines = [
        f"- {_label(row)}: {_text(headline(row))}, goal {row['goal']}. Cause: {cause(str(row['name']))}"
        for row in rows
        if is_reached(row) is False
    ]
    lines += [
        f"- {_label(row)}, {name}: {_text(figure)}, goal {goal}. Cause: {cause(f'{row["name"]}, {name}')}"
        for row in rows
        for name, figure, goal in beside(row)
        if is_reached({"ratio": figure, "goal": goal}) is False
    ]
    return lines or ["Nothing misses its goal."]


def _label(row: Row) -> str:
    """Return a row's name, with what tells it from others of that name."""
    facts = [f"{key.replace('_', ' ')} {_text(row[key])}" for key in _CASES if key in row]
    return f"`{row['name']}`" + (f" ({', '.join(facts)})" if facts else "")


def _details(row: Row) -> list[str]:
    with_goals = [f"- {name}: {_text(figure)} (goal {goal})" for name, figure, goal in beside(row)]
    shown = {name for name, _, _ in beside(row)} | _HEADLINES | {"ours_min_max", "reference_min_max"}
    others = {key: value for key, value in row.items() if key not in shown and not key.endswith("_goal")}
    lines = [f"### {row['name']}", "", *with_goals]
    lines += [f"- {key}: `{json.dumps(rounded(value))}`" for key, value in others.items()]
    return [*lines, f"- {row['runs']} runs on {row['device']}", ""]


def page(rows: Sequence[Row], machine: Machine, pictures: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        rows: as the benchmarks print them.
        machine: where they were measured.
        pictures: file names in `images/benchmarks`, by title.
    """
    drawn = [f"![{title}](images/benchmarks/{name})\n" for title, name in pictures.items()]
    lines = [
        _INTRODUCTION,
        f"{machine.date}; {machine.processor}, {machine.cores} cores, load average {machine.load} when it was written; "
        f"{machine.versions}. Peers: {machine.peers}.",
        "",
        *_table(rows),
        "",
        "## What misses its goal, and why",
        "",
        *_misses(rows),
        "",
        "## Pictures",
        "",
        *drawn,
        "## Further figures",
        "",
        *(line for row in rows for line in _details(row)),
    ]
    return "\n".join(lines).rstrip() + "\n"


def kept_rows(path: Path, new: Sequence[Row]) -> list[Row]:
    """Return the new rows, and those of a file whose benchmarks were not run now, in the order of the names.

    Args:
        path: a JSON file of rows; it need not exist.
        new: what was measured now.
    """
    old: list[Row] = json.loads(path.read_text()) if path.exists() else []
    run = {str(row["name"]).partition(":")[0] for row in new}
    rows = [*new, *(row for row in old if str(row["name"]).partition(":")[0] not in run)]
    return sorted(rows, key=lambda row: str(row["name"]).partition(":")[0])


def write_page(new: Sequence[Row], peers: str, docs: Path = ROOT / "docs") -> Path:
    """Write page, pictures and rows, and return the page's path.

    Args:
        new: rows that were measured now.
        peers: what is known about the peers' environment.
        docs: the folder.
    """
    from benchmarks.plots import draw_all  # matplotlib, which measuring does not need

    folder = docs / "images" / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    rows = kept_rows(folder / "rows.json", new)
    (folder / "rows.json").write_text(json.dumps(rounded(rows), indent=1) + "\n")
    path = docs / "benchmarks.md"
    path.write_text(page(rows, this_machine(peers), draw_all(rows, folder)))
    return path
