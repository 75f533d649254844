"""What this process uses, and how fast that grows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

_SELF = Path("/proc/self")


class Usage(NamedTuple):
    """What the process uses at one moment.

    Attributes:
        rss_mb: memory that is resident, in 10^6 bytes.
        files: open file descriptors.
        threads: of the operating system, those of XLA too.
    """

    rss_mb: float
    files: float
    threads: float


def can_measure() -> bool:
    """Return whether the operating system tells."""
    return (_SELF / "statm").exists()


def usage() -> Usage:
    """Return what this process uses now."""
    pages = int((_SELF / "statm").read_text().split()[1])
    return Usage(
        pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        len(os.listdir(_SELF / "fd")) - 1,  # without the one that lists
        len(os.listdir(_SELF / "task")),
    )


def slopes_per_hour(seconds: Sequence[float], usages: Sequence[Usage]) -> Usage:
    """Return how fast each figure grows in an hour: a line through all of them, by least squares.

    Example:
        >>> slopes_per_hour([0.0, 1800.0, 3600.0], [Usage(100.0, 5, 7), Usage(101.0, 5, 7), Usage(102.0, 5, 8)])
        Usage(rss_mb=2.0, files=0.0, threads=1.0)
    """
    hours = np.asarray(seconds) / 3600
    slopes, _ = np.polyfit(hours - hours.mean(), np.asarray(usages), 1)
    return Usage(*(round(float(slope), 3) + 0.0 for slope in slopes))
