"""Write the states of tests/golden/state-v1, which every later version of the library must read.

.venv/bin/python scripts/golden_state.py tests/golden/state-v1

Only for a new schema, into a new directory: what is there is never written again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pamiq_jax.checkpoint import StateStore
from pamiq_jax.checkpoint.values import DTYPES

BLOCK_BYTES = 512


def golden_value(number: int) -> dict[str, Any]:
    """Return the value of a state: every kind of leaf that can be stored, the same on every machine."""
    return {
        "dtypes": {name: (np.arange(6) % 2).reshape(2, 3).astype(dtype) for name, dtype in DTYPES.items()},
        "blocks": np.arange(600, dtype=np.uint16) + np.uint16(600 * number),
        "frozen": np.arange(300, dtype=np.uint16).reshape(3, 100),
        "zero_dimensions": np.float32(number + 0.5),
        "empty": np.zeros((0, 3), np.int32),
        "keys": {
            "threefry": jax.random.wrap_key_data(np.array([number, 7], np.uint32), impl="threefry2x32"),
            "rbg": jax.random.wrap_key_data(np.arange(8, dtype=np.uint32).reshape(2, 4), impl="rbg"),
        },
        "python": [None, True, False, 0, -7, 2**53 + 1, -(2**200), 0.1, -0.0, "text, ü, \0, \ud800"],
        "not finite": (float("inf"), float("-inf"), float("nan")),
        "nested": ([], (), {}, [(1, [2.5]), {3: "an int as key", "[0].mu['w']": np.ones(1, np.int8)}]),
    }


def golden_facts(number: int) -> dict[str, Any]:
    """Return the facts of a state."""
    return {"version": number, "metrics": {"loss": 0.25 / number, "worst": float("inf")}, "tags": ["golden", None]}


def main() -> None:
    """Write both states into a new directory."""
    directory = Path(sys.argv[1])
    if directory.exists():
        sys.exit(f"{directory} exists already; what is golden is never written again")
    store = StateStore(directory, block_bytes=BLOCK_BYTES)
    for number in (1, 2):
        store.write(golden_value(number), facts=golden_facts(number), created_at=1_763_000_000.25 + number)
    (directory / "temporary").rmdir()


if __name__ == "__main__":
    main()
