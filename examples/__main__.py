"""Runs examples by name, or all of them: `python -m examples vae gan`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

HELPERS = ("__init__", "__main__", "digits", "figures")


def names() -> list[str]:
    """Return the names of all examples."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in HELPERS)


def main(arguments: list[str]) -> int:
    """Run them one after the other; return the exit code.

    Args:
        arguments: names of examples; none for all.
    """
    known = names()
    if unknown := [name for name in arguments if name not in known]:
        print(f"unknown: {', '.join(unknown)}; the examples are {', '.join(known)}", file=sys.stderr)
        return 2
    for name in arguments or known:
        print(f"== {name}")
        importlib.import_module(f"examples.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
