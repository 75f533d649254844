"""How a peer's program answers: a figure for each line that it is sent."""

from __future__ import annotations

import sys
from collections.abc import Callable


def answer(measure: Callable[[], float]) -> None:
    """Print a figure for each line that comes in, after one that warms up and does not count."""
    measure()
    for _ in sys.stdin:
        print("figure", measure(), flush=True)
