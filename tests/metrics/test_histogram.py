from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pamiq_jax.metrics import LatencyHistogram

durations = st.lists(st.floats(2e-7, 9e3), min_size=1, max_size=60)
percents = st.floats(0, 100)


def histogram_of(seconds: list[float]) -> LatencyHistogram:
    histogram = LatencyHistogram.empty()
    for value in seconds:
        histogram = histogram.add(value)
    return histogram


@given(durations, percents)
def test_percentiles_are_those_of_numpy(seconds: list[float], percent: float) -> None:
    expected = float(np.percentile(np.array(seconds), percent, method="inverted_cdf"))
    assert histogram_of(seconds).percentile(percent) == pytest.approx(expected, rel=0.025)


@given(durations, durations, percents)
def test_merging_is_adding_all(first: list[float], second: list[float], percent: float) -> None:
    merged = histogram_of(first).merge(histogram_of(second))
    together = histogram_of(first + second)
    np.testing.assert_array_equal(merged.counts, together.counts)
    assert merged.percentile(percent) == together.percentile(percent)


@given(durations)
def test_percentiles_grow(seconds: list[float]) -> None:
    histogram = histogram_of(seconds)
    values = [histogram.percentile(percent) for percent in range(0, 101, 5)]
    assert values == sorted(values)


def test_adding_changes_nothing_that_was_there() -> None:
    before = LatencyHistogram.empty().add(0.001)
    after = before.add(0.002)
    assert (before.total, after.total, LatencyHistogram.empty().total) == (1, 2, 0)


def test_nothing_has_no_percentile() -> None:
    assert math.isnan(LatencyHistogram.empty().percentile(50))


@pytest.mark.parametrize(("seconds", "nearest"), [(0.0, 1e-7), (-1.0, 1e-7), (1e-9, 1e-7), (1e6, 1e4), (math.inf, 1e4)])
def test_what_is_outside_counts_in_the_nearest_bin(seconds: float, nearest: float) -> None:
    histogram = LatencyHistogram.empty().add(seconds)
    assert histogram.total == 1
    assert histogram.percentile(50) == pytest.approx(nearest, rel=0.025)
