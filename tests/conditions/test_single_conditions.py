"""What each condition decides, says and hints, and what its factory refuses."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from pamiq_jax.conditions import (
    Condition,
    Decision,
    Progress,
    Wake,
    always,
    every_seconds,
    fresh,
    max_duty,
    min_new,
    min_size,
    samples_per_insert,
    time_of_day,
    when,
)
from pamiq_jax.conditions.function import as_condition
from pamiq_jax.errors import InvalidValueError

HOUR = 3600
START = Progress()


def is_even(now: Progress, last: Progress) -> Any:
    return now.size % 2 == 0


@pytest.mark.parametrize(
    ("condition", "now", "last", "decision"),
    [
        (min_size(1000), Progress(size=12), START, (False, "has 12 of 1000 records", Wake(records=988))),
        (min_size(1000), Progress(size=1000), START, (True, "has 1000 of 1000 records", Wake())),
        (min_new(100), Progress(inserted=240), Progress(inserted=200), (False, "40 of 100 new records", Wake(60))),
        (min_new(100), Progress(inserted=100), START, (True, "100 of 100 new records", Wake())),
        (min_new(100), Progress(seen=500, size=500), START, (False, "0 of 100 new records", Wake(100))),
        (every_seconds(5), Progress(time_ms=4999), START,
         (False, "4.9 of 5 seconds since the last run", Wake(milliseconds=1))),
        (every_seconds(0.5), Progress(time_ms=900), Progress(time_ms=400),
         (True, "0.5 of 0.5 seconds since the last run", Wake())),
        (max_duty(0.25), Progress(time_ms=9000, busy_ms=2001), Progress(time_ms=1000),
         (False, "busy for 2001 of 2000 ms that 8000 ms since the last run allow", Wake(milliseconds=4))),
        (max_duty(0.25), Progress(time_ms=9004, busy_ms=2001), Progress(time_ms=1000),
         (True, "busy for 2001 of 2001 ms that 8004 ms since the last run allow", Wake())),
        (max_duty(0.5), START, START, (True, "busy for 0 of 0 ms that 0 ms since the last run allow", Wake())),
        (fresh(5), START, START, (False, "has no record yet", Wake(records=1))),
        (fresh(5), Progress(size=1, time_ms=9000, newest_ms=4000), START,
         (True, "the newest record is 5.0 seconds old, at most 5 allowed", Wake())),
        (fresh(5), Progress(size=1, time_ms=9001, newest_ms=4000), START,
         (False, "the newest record is 5.1 seconds old, at most 5 allowed", Wake(records=1))),
        (~fresh(5), Progress(size=1, time_ms=9000, newest_ms=6000), START,
         (False, "not: the newest record is 3.0 seconds old, at most 5 allowed", Wake(milliseconds=2001))),
        (always(), START, START, (True, "always", Wake())),
        (when(is_even), Progress(size=3), START, (False, "is_even: no", Wake(records=1))),
        (when(is_even), Progress(size=4), START, (True, "is_even: yes", Wake())),
        (when(is_even, description="an even size", recheck_seconds=2), Progress(size=3), START,
         (False, "an even size: no", Wake(records=1, milliseconds=2000))),
        (as_condition(lambda now, last: (now.steps > 3, "warming up")), START, START, (False, "warming up", Wake(1))),
    ],
)  # fmt: skip
def test_decision(condition: Condition, now: Progress, last: Progress, decision: Any) -> None:
    assert condition(now, last) == Decision(*decision)


@pytest.mark.parametrize(
    ("window", "hour", "decision"),
    [
        ((8, 20), 7.5, (False, "07:30 is outside 08:00-20:00", Wake(milliseconds=1_800_000))),
        ((8, 20), 8, (True, "08:00 is within 08:00-20:00", Wake())),
        ((8, 20), 20, (False, "20:00 is outside 08:00-20:00", Wake(milliseconds=12 * HOUR * 1000))),
        ((22, 6), 23, (True, "23:00 is within 22:00-06:00", Wake())),
        ((22, 6), 0, (True, "00:00 is within 22:00-06:00", Wake())),
        ((22, 6), 6, (False, "06:00 is outside 22:00-06:00", Wake(milliseconds=16 * HOUR * 1000))),
        ((22.5, 0), 22, (False, "22:00 is outside 22:30-00:00", Wake(milliseconds=1_800_000))),
    ],
)
def test_time_of_day(window: tuple[float, float], hour: float, decision: Any) -> None:
    assert time_of_day(*window)(Progress(second_of_day=int(hour * HOUR)), START) == Decision(*decision)


def test_outside_of_a_window_is_until_its_next_start_over_midnight() -> None:
    night = ~time_of_day(6, 22)
    assert night(Progress(second_of_day=12 * HOUR), START).wake == Wake(milliseconds=10 * HOUR * 1000)
    assert time_of_day(8, 20)(Progress(second_of_day=23 * HOUR), START).wake == Wake(milliseconds=9 * HOUR * 1000)


@pytest.mark.parametrize(
    ("ratio", "tolerance", "inserted", "sampled", "go", "records"),
    [
        (4, 0, 0, 0, True, None),
        (4, 0, 100, 400, True, None),
        (4, 0, 100, 401, False, 1),
        (4, 64, 100, 512, False, 12),
        (0.5, 0, 100, 51, False, 2),
        (1 / 3, 0, 100, 34, False, 2),
        (4, -32, 7, 0, False, 1),
        (4, -32, 8, 0, True, None),
    ],
)
def test_samples_per_insert(ratio: float, tolerance: int, inserted: int, sampled: int, go: bool, records: Any) -> None:
    decision = samples_per_insert(ratio, tolerance)(Progress(inserted=inserted, sampled=sampled), START)
    assert (decision.go, decision.wake) == (go, Wake(records))


def test_samples_per_insert_says_what_is_allowed() -> None:
    decision = samples_per_insert(0.5, 8)(Progress(inserted=101, sampled=60), START)
    assert decision.reason == "60 of 58 samples that 101 records allow"


@pytest.mark.parametrize("run", [32, 96])
def test_a_negative_tolerance_pays_for_the_whole_run_first(run: int) -> None:
    condition, sampled, inserted = samples_per_insert(2, tolerance=-run), 0, 0
    for inserted in range(1000):
        if condition(Progress(inserted=inserted, sampled=sampled), START).go:
            sampled += run
        assert sampled <= 2 * inserted
    assert sampled > 2 * inserted - run


def test_samples_per_insert_survives_counters_that_wrap_around() -> None:
    condition = samples_per_insert(32, tolerance=64)
    wrapped = (32 * 100_000_000 + 2**31) % 2**32 - 2**31
    now = Progress(inserted=jnp.int32(100_000_000), sampled=jnp.array(wrapped, jnp.int32))
    assert bool(condition.test(now, START))
    assert not bool(condition.test(now._replace(sampled=now.sampled + 65), START))


def test_a_negative_change_of_counters_is_no_reason_to_wake_at_once() -> None:
    assert min_new(10)(Progress(inserted=5), Progress(inserted=8)) == (False, "-3 of 10 new records", Wake(13))


def test_numpy_and_jax_scalars_are_taken_as_ints() -> None:
    condition = min_size(np.int64(1000))
    assert repr(condition) == "min_size(1000)"
    assert condition(Progress(size=jnp.int32(12)), START).reason == "has 12 of 1000 records"  # pyright: ignore


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: min_size(0), r"min_size\(minimum\) is 0, expected an integer from 1 to 2147483647"),
        (lambda: min_size(2.5), r"min_size\(minimum\) is 2.5, expected an integer"),
        (lambda: min_size(True), r"min_size\(minimum\) is True, expected an integer"),
        (lambda: min_new(-1), r"min_new\(minimum\) is -1, expected an integer from 1"),
        (lambda: min_new(2**31), r"min_new\(minimum\) is 2147483648, expected an integer from 1 to 2147483647"),
        (lambda: every_seconds(0), r"every_seconds\(seconds\) is 0, expected a number from 0.001"),
        (lambda: every_seconds(float("nan")), r"every_seconds\(seconds\) is nan, expected a number"),
        (lambda: samples_per_insert(0), r"samples_per_insert\(ratio\) is 0, expected a number from 0.001"),
        (lambda: samples_per_insert(0.0123457), r"a denominator up to 1000; the nearest is 0.0123"),
        (lambda: samples_per_insert(4, 0.5), r"samples_per_insert\(tolerance\) is 0.5, expected an integer"),
        (lambda: samples_per_insert(0.5, 2**31 - 1), r"\(tolerance\) is 2147483647, expected .* to 1073741823"),
        (
            lambda: samples_per_insert(4, max_debt=-1),
            r"samples_per_insert\(max_debt\) is -1, expected an integer from 0",
        ),
        (lambda: samples_per_insert(0.5, max_debt=2**31 - 1), r"\(max_debt\) is 2147483647, expected .* to 1073741823"),
        (lambda: max_duty(0), r"max_duty\(fraction\) is 0, expected a number from 0.001 to 1"),
        (lambda: max_duty(20), r"max_duty\(fraction\) is 20, expected a number from 0.001 to 1"),
        (lambda: max_duty(0.0123457), r"a denominator up to 1000; the nearest is 0.0123"),
        (lambda: fresh(0), r"fresh\(max_age_seconds\) is 0, expected a number from 0.001"),
        (lambda: time_of_day(-1, 6), r"time_of_day\(start_hour\) is -1, expected a number from 0 to 24"),
        (lambda: time_of_day(6, 25), r"time_of_day\(end_hour\) is 25, expected a number from 0 to 24"),
        (lambda: time_of_day(24, 6), r"expected an hour before 24; write 0 for midnight"),
        (lambda: time_of_day(6, 6), r"write time_of_day\(0, 24\) for the whole day"),
        (lambda: when(True), r"when\(function\) is True, expected a callable"),
        (lambda: when(is_even, recheck_seconds=0), r"when\(recheck_seconds\) is 0, expected a number"),
        (lambda: as_condition(3), r"is 3, expected a callable \(now, last\) -> bool"),
    ],
    ids=range(24),
)
def test_a_bad_argument_is_refused(make: Any, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        make()


@pytest.mark.parametrize("answer", [None, 1, (True, "a", 3), (True, None)], ids=repr)
def test_a_function_that_returns_no_truth_is_refused(answer: Any) -> None:
    def forgetful(now: Progress, last: Progress) -> Any:
        return answer

    with pytest.raises(
        InvalidValueError, match=r"what forgetful returned is .*, expected a bool, or a bool and a reason"
    ):
        when(forgetful)(START, START)


@pytest.mark.parametrize("truth", [True, np.bool(True), jnp.array(True)], ids=["bool", "numpy", "jax"])
def test_a_function_may_return_any_kind_of_bool(truth: Any) -> None:
    assert when(lambda now, last: truth, description="d")(START, START) == (True, "d: yes", Wake())


def test_a_ratio_is_kept_as_the_fraction_that_was_meant() -> None:
    assert repr(samples_per_insert(1 / 3)) == f"samples_per_insert({1 / 3}, 0)"
    assert samples_per_insert(0.1) == samples_per_insert(float(Fraction(1, 10)))
