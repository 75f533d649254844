"""`&`, `|` and `~`: truth, reasons, hints, and which combinations can never hold."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from pamiq_jax.conditions import (
    All,
    Condition,
    Not,
    Progress,
    Wake,
    always,
    check_satisfiable,
    every_seconds,
    fresh,
    max_duty,
    min_new,
    min_size,
    samples_per_insert,
    time_of_day,
    when,
)
from pamiq_jax.errors import UnsatisfiableConditionError

START = Progress()


def is_even(now: Progress, last: Progress) -> Any:
    return now.size % 2 == 0


@pytest.mark.parametrize(("left", "right"), list(itertools.product([True, False], repeat=2)))
def test_truth_tables(left: bool, right: bool) -> None:
    now = Progress(size=5 * left, inserted=5 * right)
    first, second = min_size(5), min_new(5)
    assert (first & second)(now, START).go is (left and right)
    assert (first | second)(now, START).go is (left or right)
    assert (~first)(now, START).go is (not left)


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        (min_size(9) & min_new(8), "has 5 of 9 records and 5 of 8 new records"),
        (min_size(9) & min_new(2), "has 5 of 9 records"),
        (min_size(3) & min_new(2), "has 5 of 3 records and 5 of 2 new records"),
        (min_size(9) | min_new(8), "has 5 of 9 records or 5 of 8 new records"),
        (min_size(9) | min_new(2), "5 of 2 new records"),
        (min_size(9) & (min_new(8) | is_even), "has 5 of 9 records and (5 of 8 new records or is_even: no)"),
        (~min_size(3), "not: has 5 of 3 records"),
        (~(min_size(3) & min_new(2)), "not: (has 5 of 3 records and 5 of 2 new records)"),
    ],
    ids=repr,
)
def test_reasons_name_the_parts_that_decide(condition: Condition, reason: str) -> None:
    assert condition(Progress(size=5, inserted=5), START).reason == reason


@pytest.mark.parametrize(
    ("condition", "wake"),
    [
        (min_size(15) & min_new(9), Wake(records=10)),
        (min_size(15) | min_new(9), Wake(records=4)),
        (min_size(15) & min_new(2), Wake(records=10)),
        (min_size(15) & every_seconds(3), Wake(records=10, milliseconds=3000)),
        (min_size(15) | every_seconds(3), Wake(records=10, milliseconds=3000)),
        (min_size(15) & when(is_even, recheck_seconds=7), Wake(records=10, milliseconds=7000)),
        (every_seconds(9) & every_seconds(3), Wake(milliseconds=9000)),
        (every_seconds(9) | every_seconds(3), Wake(milliseconds=3000)),
        ((min_size(15) | every_seconds(1)) & (min_size(10) | every_seconds(3)), Wake(records=5, milliseconds=1000)),
        ((min_size(15) | every_seconds(3)) & (min_size(10) | every_seconds(1)), Wake(records=10, milliseconds=3000)),
        (~(min_size(3) | time_of_day(0, 1)), Wake(records=1, milliseconds=3_600_000)),
        (~always(), Wake()),
    ],
    ids=repr,
)
def test_wake_hints(condition: Condition, wake: Wake) -> None:
    assert condition(Progress(size=5, inserted=5), START).wake == wake


def test_a_callable_takes_part_on_either_side() -> None:
    assert is_even & min_size(4) == when(is_even) & min_size(4)
    assert min_size(4) | is_even == min_size(4) | when(is_even)
    assert (is_even | min_size(4))(Progress(size=3), START).reason == "is_even: no or has 3 of 4 records"


@pytest.mark.parametrize("join", [lambda: min_size(4) & 3, lambda: 3 | min_size(4)], ids=["and", "or"])
def test_what_is_no_condition_cannot_be_joined(join: Any) -> None:
    with pytest.raises(TypeError, match="unsupported operand type"):
        join()


def test_python_and_is_refused_since_it_would_drop_a_part() -> None:
    with pytest.raises(TypeError, match=r"min_size\(4\) has no truth of its own: join conditions with & \| ~"):
        min_size(4) and min_new(3)


def test_nested_combinations_of_one_kind_are_unfolded() -> None:
    parts = min_size(1), min_new(2), every_seconds(3)
    assert (parts[0] & parts[1]) & parts[2] == parts[0] & (parts[1] & parts[2]) == All(parts)
    assert ~~parts[0] == Not(Not(parts[0]))


@pytest.mark.parametrize(
    "condition",
    [
        min_size(5),
        min_new(5),
        every_seconds(0.25),
        samples_per_insert(1 / 3, -7),
        samples_per_insert(4, 64, max_debt=512),
        samples_per_insert(4, max_debt=0),
        max_duty(1 / 3),
        fresh(2.5),
        time_of_day(22.5, 6),
        always(),
        when(is_even),
        when(is_even, description="it's even", recheck_seconds=1.5),
        min_size(1) & min_new(2) & every_seconds(3),
        (min_size(1) | min_new(2)) & ~(every_seconds(3) | always()) & ~when(is_even),
        (min_size(1) & min_new(2)) | every_seconds(123456.789),
    ],
    ids=repr,
)
def test_the_repr_is_the_code_that_makes_it(condition: Condition) -> None:
    assert eval(repr(condition)) == condition
    assert hash(eval(repr(condition))) == hash(condition)


@pytest.mark.parametrize(
    "condition",
    [
        min_size(101),
        min_size(101) & always(),
        min_size(101) | min_size(102),
        ~always(),
        ~(always() | min_new(3)),
        ~time_of_day(0, 24),
        ~~min_size(101),
        min_size(5) & ~(always() & ~min_size(101)),
    ],
    ids=repr,
)
def test_what_can_never_hold_is_refused(condition: Condition) -> None:
    with pytest.raises(UnsatisfiableConditionError, match=r"^trainer 'vae' would wait for ever for .*: .*; give it"):
        check_satisfiable(condition, capacity=100, name="trainer 'vae'")


@pytest.mark.parametrize(
    "condition",
    [
        min_size(100),
        min_new(101),
        min_size(101) | every_seconds(60),
        ~min_size(101),
        ~(always() & min_new(3)),
        ~time_of_day(0, 23),
        always(),
        samples_per_insert(4, -1000),
        ~min_size(5),
        when(is_even),
        ~max_duty(1),
        ~fresh(5),
    ],
    ids=repr,
)
def test_what_may_hold_is_accepted(condition: Condition) -> None:
    assert condition.never(100) is None
    check_satisfiable(condition, capacity=100, name="trainer 'vae'")


def test_the_refusal_says_why() -> None:
    message = r"min_size\(101\) needs more records than the 100 that the buffer holds"
    with pytest.raises(UnsatisfiableConditionError, match=message):
        check_satisfiable(min_new(3) & min_size(101), capacity=100, name="trainer 'vae'")
