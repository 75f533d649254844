"""What both sides of the benchmark `sample` draw from."""

from __future__ import annotations

from typing import Any

import numpy as np

CAPACITY, BATCH, BATCHES = 65_536, 256, 32


def record() -> dict[str, Any]:
    """Return one record of four leaves."""
    return {
        "observation": np.zeros(64, np.float32),
        "action": np.zeros(4, np.float32),
        "reward": np.zeros((), np.float32),
        "done": np.zeros((), np.bool_),
    }


def records() -> dict[str, Any]:
    """Return as many records as a buffer holds, leaves `[CAPACITY, ...]`."""
    source = np.random.default_rng(0)
    return {
        "observation": source.standard_normal((CAPACITY, 64), np.float32),
        "action": source.standard_normal((CAPACITY, 4), np.float32),
        "reward": source.standard_normal(CAPACITY, np.float32),
        "done": source.random(CAPACITY) < 0.01,
    }
