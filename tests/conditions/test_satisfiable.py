"""Conditions that contradict themselves are refused, and nothing that can hold is."""

from __future__ import annotations

import functools
import itertools
import operator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamiq_jax.conditions import (
    All,
    Condition,
    Progress,
    Spans,
    always,
    check_satisfiable,
    contradiction,
    every_seconds,
    every_versions,
    fresh,
    max_duty,
    min_new,
    min_size,
    samples_per_insert,
    time_of_day,
    when,
)
from pamiq_jax.conditions.satisfiable import MAX_CASES
from pamiq_jax.errors import UnsatisfiableConditionError

CAPACITY = 6


def is_even(now: Progress, last: Progress) -> Any:
    return now.size % 2 == 0


LEAVES = st.one_of(
    st.integers(1, CAPACITY + 1).map(min_size),
    st.integers(1, 9).map(min_new),
    st.integers(1, 4).map(every_versions),
    st.integers(1, 9).map(lambda milliseconds: every_seconds(milliseconds / 1000)),
    st.integers(1, 9).map(lambda milliseconds: fresh(milliseconds / 1000)),
    st.sampled_from([0.25, 1 / 3, 0.5, 1]).map(max_duty),
    st.tuples(st.integers(0, 23), st.integers(0, 24))
    .filter(lambda hours: hours[0] != hours[1])
    .map(lambda hours: time_of_day(*hours)),
    st.builds(samples_per_insert, st.sampled_from([0.4, 2]), st.integers(-4, 4), max_debt=st.none() | st.just(3)),
    st.sampled_from([always(), when(is_even)]),
)
# Many of few kinds, so that they often speak of one quantity.
LITERALS = LEAVES | LEAVES.map(operator.invert)
CONDITIONS = st.recursive(
    LITERALS,
    lambda parts: st.one_of(
        st.lists(parts, min_size=2, max_size=4).map(lambda some: functools.reduce(operator.and_, some)),
        st.lists(parts, min_size=2, max_size=3).map(lambda some: functools.reduce(operator.or_, some)),
        parts.map(operator.invert),
    ),
    max_leaves=8,
)


@st.composite
def histories(draw: st.DrawFn) -> tuple[Progress, Progress]:
    """Return (now, last) as a buffer of CAPACITY would count them."""

    def advanced(before: Progress) -> Progress:
        more = [draw(st.integers(0, 12)) for _ in range(5)]
        inserted, time = int(before.inserted) + more[0], int(before.time_ms) + more[1]
        return before._replace(
            size=draw(st.integers(0, min(inserted, CAPACITY))),
            seen=inserted,
            inserted=inserted,
            sampled=int(before.sampled) + more[2],
            time_ms=time,
            second_of_day=draw(st.integers(0, 86_399)),
            busy_ms=int(before.busy_ms) + min(more[3], more[1]),
            newest_ms=draw(st.integers(0, time)),
            versions=int(before.versions) + more[4] // 3,
        )

    last = advanced(Progress())._replace(forgiven=draw(st.integers(0, 9)))
    return advanced(last), last


@settings(max_examples=400)
@given(CONDITIONS, st.lists(histories(), min_size=1, max_size=12))
def test_what_is_refused_never_holds(condition: Condition, cases: list[tuple[Progress, Progress]]) -> None:
    if contradiction(condition, CAPACITY) is not None:
        assert not any(condition(*case).go for case in cases)
    if contradiction(condition, CAPACITY, most_versions=1) is not None:
        assert not any(condition(*case).go for case in cases if case[0].versions - case[1].versions <= 1)


@given(
    st.lists(st.tuples(st.sampled_from([min_size, min_new]), st.integers(1, 8), st.booleans()), min_size=1, max_size=5)
)
def test_of_independent_counters_all_contradictions_are_found(drawn: list[tuple[Any, int, bool]]) -> None:
    parts = [make(number) if holds else ~make(number) for make, number, holds in drawn]
    condition = All(tuple(parts))
    progresses = itertools.product(range(CAPACITY + 1), range(10))
    can_hold = any(condition(Progress(size=size, inserted=new), Progress()).go for size, new in progresses)
    assert (contradiction(condition, CAPACITY) is None) is can_hold


REFUSED = {
    min_size(50) & ~min_size(10): "min_size(50) and ~min_size(10) exclude each other",
    ~min_size(10) & min_size(50): "~min_size(10) and min_size(50) exclude each other",
    min_new(10) & ~min_new(5): "min_new(10) and ~min_new(5) exclude each other",
    min_new(10) & min_size(2) & ~(min_new(5) | min_size(90)): "min_new(10) and ~min_new(5) exclude each other",
    every_seconds(5) & ~every_seconds(4): "every_seconds(5) and ~every_seconds(4) exclude each other",
    fresh(5) & ~fresh(10): "fresh(5) and ~fresh(10) exclude each other",
    fresh(5) & ~min_size(1): "fresh(5) and ~min_size(1) exclude each other",
    max_duty(0.1) & ~max_duty(0.2): "max_duty(0.1) and ~max_duty(0.2) exclude each other",
    every_versions(2) & ~every_versions(2): "every_versions(2) and ~every_versions(2) exclude each other",
    time_of_day(8, 12) & time_of_day(12, 20): "time_of_day(8, 12) and time_of_day(12, 20) exclude each other",
    time_of_day(22, 6) & ~time_of_day(21, 7): "time_of_day(22, 6) and ~time_of_day(21, 7) exclude each other",
    ~time_of_day(0, 12) & ~time_of_day(12, 24): "~time_of_day(12, 24) and 24 hours of a day exclude each other",
    samples_per_insert(2, 3) & ~samples_per_insert(2, 9): "exclude each other",
    (min_size(101) | min_new(9)) & ~min_new(3): "min_size(101) needs more records than the 100 that the buffer holds; ",
    (min_size(50) | min_new(9)) & ~(min_size(20) | min_new(3)): "and ~min_size(20) exclude each other; ",
}


@pytest.mark.parametrize("condition", REFUSED, ids=repr)
def test_a_contradiction_is_refused_with_the_parts_that_make_it(condition: Condition) -> None:
    with pytest.raises(
        UnsatisfiableConditionError, match=r"would wait for ever for .*leave a part out, or join"
    ) as raised:
        check_satisfiable(condition, capacity=100, name="trainer 'vae'")
    assert REFUSED[condition] in str(raised.value)


@pytest.mark.parametrize(
    "condition",
    [
        min_size(10) & ~min_size(50),
        min_size(10) & ~min_size(11),
        min_new(50) & ~min_size(10),  # contradictory, but not to be seen in one quantity
        when(is_even) & ~when(is_even),  # nothing is known of a user's function
        every_seconds(5) & ~every_seconds(6),
        ~fresh(5) & fresh(10),
        ~max_duty(0.1) & max_duty(0.2),
        time_of_day(8, 12) & time_of_day(11, 20),
        time_of_day(22, 6) & time_of_day(5, 7),
        samples_per_insert(2, 9) & ~samples_per_insert(2, 3),
        samples_per_insert(2, 3) & ~samples_per_insert(3, 9),
        (min_size(50) | min_new(9)) & ~min_size(10),
        every_versions(3),
    ],
    ids=repr,
)
def test_what_may_hold_is_accepted(condition: Condition) -> None:
    check_satisfiable(condition, capacity=100, name="trainer 'vae'")


def test_what_has_too_many_cases_is_not_looked_into() -> None:
    few = functools.reduce(operator.and_, [min_size(n) | min_new(n) for n in range(1, 9)])
    reason = contradiction(few & ~min_size(1) & ~min_new(1), CAPACITY)
    assert reason is not None
    assert reason.endswith(" more")
    many = functools.reduce(operator.and_, [min_size(n) | min_new(n) for n in range(1, 10)])
    assert 2**8 <= MAX_CASES < 2**9
    assert contradiction(many & ~min_size(1) & ~min_new(1), 100) is None


def test_a_condition_of_ones_own_says_what_it_asks() -> None:
    class Third(Condition):
        def test(self, now: Progress, last: Progress) -> Any:
            return now.steps >= 3

        def explain(self, now: Progress, last: Progress) -> str:
            return f"{now.steps} of 3 steps"

        def spans(self) -> Spans:
            return {"steps": ((3, float("inf")),)}

    assert contradiction(Third(), CAPACITY) is None
    assert contradiction(Third() & ~Third(), CAPACITY) is not None


def test_a_combination_whose_meaning_was_changed_is_not_looked_into() -> None:
    class Some(All):
        def test(self, now: Progress, last: Progress) -> Any:
            return True

    assert contradiction(Some((min_size(5), ~min_size(5))), CAPACITY) is None
