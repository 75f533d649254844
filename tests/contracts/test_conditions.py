"""Every condition passes the public suite: a new one is one more row."""

from __future__ import annotations

from typing import Any

import pytest

from pamiq_jax.conditions import (
    Condition,
    Progress,
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
from pamiq_jax.testing import check_condition


def is_even(now: Progress, last: Progress) -> Any:
    return now.size % 2 == 0


CONDITIONS = [
    always(),
    min_size(1),
    min_size(5),
    min_size(9),
    min_new(7),
    every_seconds(0.008),
    every_seconds(60),
    samples_per_insert(0.4, 3),
    samples_per_insert(4, -2),
    samples_per_insert(2, 3, max_debt=5),
    max_duty(0.25),
    fresh(0.5),
    time_of_day(8, 20),
    time_of_day(22, 6),
    time_of_day(0, 24),
    when(is_even),
    when(lambda now, last: now.time_ms % 2 == 1, recheck_seconds=0.001),
    min_size(5) & min_new(7),
    min_size(9) & always(),
    min_size(5) | every_seconds(60),
    ~min_new(7),
    ~min_size(9),
    ~always(),
    (min_new(7) | every_seconds(0.1)) & (samples_per_insert(3) | every_seconds(3)),
    (min_size(5) | is_even) & ~time_of_day(8, 20),
    ~(samples_per_insert(3, -3) | time_of_day(0, 12)) | ~always(),
]


@pytest.mark.parametrize("condition", CONDITIONS, ids=repr)
def test_condition(condition: Condition) -> None:
    check_condition(condition, capacity=8)


def test_a_callable_is_a_condition() -> None:
    check_condition(is_even)
