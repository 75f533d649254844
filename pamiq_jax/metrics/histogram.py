"""Percentiles of a long run in fixed memory, as a value that can be merged."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, override

import numpy as np

_LOWEST_SECONDS = 1e-7
_BINS_PER_DECADE = 50
_DECADES = 11


_BINS = _BINS_PER_DECADE * _DECADES


def _bin_of(seconds: float) -> int:
    return int(min(math.log10(max(seconds, _LOWEST_SECONDS) / _LOWEST_SECONDS) * _BINS_PER_DECADE, _BINS - 1))


class LatencyHistogram(NamedTuple):
    """Counts of durations in logarithmic bins, from 0.1 microseconds to 10,000 seconds.

    A percentile is right within half a bin, that is 2.4 %. Adding returns a new histogram.

    Attributes:
        counts: `int64[bins]`, read only.

    Example:
        >>> histogram = LatencyHistogram.empty()
        >>> for milliseconds in range(1, 101):
        ...     histogram = histogram.add(milliseconds / 1000)
        >>> histogram.total, round(histogram.percentile(50), 2), round(histogram.percentile(99), 2)
        (100, 0.05, 0.1)
        >>> histogram
        LatencyHistogram(count=100, p50=0.049 s, p99=0.0977 s)
    """

    counts: np.ndarray[Any, np.dtype[np.int64]]

    @staticmethod
    def empty() -> LatencyHistogram:
        """Return a histogram of nothing."""
        return LatencyHistogram(np.zeros(_BINS, np.int64))

    @override
    def __repr__(self) -> str:
        p50, p99 = (f"{self.percentile(percent):.3g} s" for percent in (50, 99))
        return f"LatencyHistogram(count={self.total}, p50={p50}, p99={p99})"

    @property
    def total(self) -> int:
        """How many durations were added."""
        return int(self.counts.sum())

    def add(self, seconds: float) -> LatencyHistogram:
        """Return the histogram with one more duration.

        Args:
            seconds: anything outside the bins counts in the nearest one.
        """
        counts = self.counts.copy()
        counts[_bin_of(seconds)] += 1
        return LatencyHistogram(counts)

    def merge(self, other: LatencyHistogram) -> LatencyHistogram:
        """Return the histogram of both together."""
        return LatencyHistogram(self.counts + other.counts)

    @property
    def percentiles_ms(self) -> tuple[float, float, float]:
        """p50, p99 and p99.9, in milliseconds.

        Example:
            >>> [round(value, 1) for value in LatencyHistogram.empty().add(0.01).percentiles_ms]
            [10.2, 10.2, 10.2]
        """
        p50, p99, p999 = (1000 * self.percentile(percent) for percent in (50, 99, 99.9))
        return p50, p99, p999

    def percentile(self, percent: float) -> float:
        """Return the duration in seconds that `percent` of all do not exceed; NaN if there are none.

        Args:
            percent: 0 to 100.
        """
        total = self.total
        if total == 0:
            return math.nan
        rank = max(1, math.ceil(total * percent / 100))
        index = int(np.searchsorted(np.cumsum(self.counts), rank))
        return float(_LOWEST_SECONDS * 10 ** ((index + 0.5) / _BINS_PER_DECADE))


class LatencyCounter:
    """Counts durations in place, in a tenth of the time that a new histogram takes. One thread adds, any may look.

    Example:
        >>> counter = LatencyCounter()
        >>> counter.add(0.01)
        >>> counter.histogram
        LatencyHistogram(count=1, p50=0.0102 s, p99=0.0102 s)
    """

    def __init__(self) -> None:
        self._counts = [0] * _BINS

    def add(self, seconds: float) -> None:
        """Count one more duration.

        Args:
            seconds: anything outside the bins counts in the nearest one.
        """
        self._counts[_bin_of(seconds)] += 1

    @property
    def histogram(self) -> LatencyHistogram:
        """What was counted so far. Called from any thread."""
        return LatencyHistogram(np.array(self._counts, np.int64))
