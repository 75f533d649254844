"""Runs examples by name, or all of them: `python -m examples vae gan`; several seeds of one: `... ppo --seeds 0-4`."""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
from pathlib import Path

from examples import figures

HELPERS = ("__init__", "__main__", "digits", "figures", "tables")


def names() -> list[str]:
    """Return the names of all examples."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in HELPERS)


def seeds_of(text: str) -> list[int]:
    """Return the seeds that are written as "0-4" or "0,2,7".

    Raises:
        ValueError: nothing of that kind is written.
    """
    first, dash, last = text.partition("-")
    seeds = list(range(int(first), int(last) + 1)) if dash else [int(seed) for seed in text.split(",")]
    if not seeds:
        raise ValueError(f"{text} has no seeds")
    return seeds


def main(arguments: list[str]) -> int:
    """Run them one after the other, or print a table of several seeds; return the exit code.

    Args:
        arguments: names of examples, none for all, and options.
    """
    parser = argparse.ArgumentParser(prog="python -m examples", description=__doc__)
    parser.add_argument("names", nargs="*", help="examples; none for all")
    parser.add_argument("--write", action="store_true", help="draw the documentation's figures anew, not runs/examples")
    parser.add_argument("--seeds", type=seeds_of, help="print a table of what is reached with these, as 0-4 or 0,2")
    parser.add_argument("--ticks", type=int, help="of each seed of the table")
    options = parser.parse_args(arguments)
    if options.seeds is not None:
        return _print_tables(options.names, options.seeds, options.ticks)
    if not _are_known(options.names, names()):
        return 2
    for name in options.names or names():
        print(f"== {name}")
        run = importlib.import_module(f"examples.{name}").main
        has_figure = "directory" in inspect.signature(run).parameters
        run(**({"directory": figures.DOCS if options.write else figures.RUNS} if has_figure else {}))
    return 0


def _print_tables(chosen: list[str], seeds: list[int], ticks: int | None) -> int:
    from examples.tables import EXPERIMENTS, lines  # which imports the examples

    if not _are_known(chosen, sorted(EXPERIMENTS)):
        return 2
    for name in chosen or sorted(EXPERIMENTS):
        print(f"== {name}, {EXPERIMENTS[name].ticks if ticks is None else ticks:,} ticks")
        for line in lines(EXPERIMENTS[name], seeds, ticks):
            print(line, flush=True)
    return 0


def _are_known(chosen: list[str], known: list[str]) -> bool:
    if unknown := [name for name in chosen if name not in known]:
        print(f"unknown: {', '.join(unknown)}; the examples are {', '.join(known)}", file=sys.stderr)
    return not unknown


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
