"""`python -m benchmarks [NAME ...] [--quick] [--write]`: run some or all, each ending in JSON lines."""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import subprocess
import sys

from benchmarks.harness import print_row
from benchmarks.page import ROOT, write_page
from benchmarks.peers import describe_peers

NAMES = (
    "checkpoint_stall",
    "checkpoint_write",
    "guard",
    "idle_cpu",
    "inference_latency",
    "ingest",
    "memory",
    "pause",
    "prefetch",
    "publish",
    "pure_jax",
    "recompiles",
    "record_overhead",
    "sample",
    "startup",
    "tick_overhead",
    "train_throughput",
    "vae_pamiq",
)


def _in_a_process(name: str, *, quick: bool) -> list[dict[str, object]]:
    """Return the rows of a benchmark that has a process to itself; none if it fails, which is said."""
    command = [sys.executable, "-m", "benchmarks", name, *(["--quick"] if quick else [])]
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    print(result.stdout, end="", flush=True)
    if result.returncode:
        print(f"{name} failed with exit code {result.returncode}", file=sys.stderr)
        return []
    facts = {"date": datetime.date.today().isoformat(), **({"is_quick": True} if quick else {})}
    return [json.loads(line) | facts for line in result.stdout.splitlines() if line.startswith("{")]


def main() -> int:
    """Run the named benchmarks, and return the exit code: 1 if one of several failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="measure the same thing smaller, under 40 s each")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md, what was not run as it was")
    arguments = parser.parse_args()
    names = arguments.names or NAMES
    for name in names:
        if name not in NAMES:
            parser.error(f"no benchmark is named {name!r}; known: {', '.join(NAMES)}")
    if len(names) == 1 and not arguments.write:
        for row in importlib.import_module(f"benchmarks.{names[0]}").measure(quick=arguments.quick):
            print_row(row)
        return 0
    measured: dict[str, list[dict[str, object]]] = {}
    for name in names:
        measured[name] = _in_a_process(name, quick=arguments.quick)
        if arguments.write:  # after each, so that an interrupted run keeps what it has
            write_page(measured[name], describe_peers())
    return 0 if all(measured.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
