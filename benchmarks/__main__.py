"""`python -m benchmarks [NAME ...] [--quick]`: run some or all, each ending in JSON lines."""

from __future__ import annotations

import argparse
import importlib

from benchmarks.harness import print_row

NAMES = (
    "checkpoint_stall",
    "checkpoint_write",
    "guard",
    "prefetch",
    "publish",
    "pure_jax",
    "record_overhead",
    "train_throughput",
)


def main() -> None:
    """Run the named benchmarks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="measure the same thing smaller, under 40 s each")
    arguments = parser.parse_args()
    for name in arguments.names or NAMES:
        if name not in NAMES:
            parser.error(f"no benchmark is named {name!r}; known: {', '.join(NAMES)}")
        for row in importlib.import_module(f"benchmarks.{name}").measure(quick=arguments.quick):
            print_row(row)


if __name__ == "__main__":
    main()
