"""What holds for every condition: pure, the same when traced, and its hint is never too late."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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

CAPACITY = 12
MILLISECONDS = 12


def is_even(now: Progress, last: Progress) -> Any:
    return now.size % 2 == 0


COUNTING = st.one_of(
    st.integers(1, CAPACITY).map(min_size),
    st.integers(1, 20).map(min_new),
    st.builds(
        samples_per_insert,
        st.sampled_from([0.25, 0.4, 1, 3]),
        st.integers(-9, 9),
        max_debt=st.none() | st.integers(0, 9),
    ),
)
TIMED = st.one_of(
    st.integers(1, MILLISECONDS).map(lambda milliseconds: every_seconds(milliseconds / 1000)),
    st.integers(1, MILLISECONDS).map(lambda milliseconds: fresh(milliseconds / 1000)),
    st.sampled_from([0.25, 0.4, 2 / 3, 1]).map(max_duty),
)

# Parts that records and time can change both: the hard case for a hint.
EITHER = st.builds(lambda count, time: count | time, COUNTING, TIMED)


def joined(leaves: st.SearchStrategy[Condition], negated: bool = False) -> st.SearchStrategy[Condition]:
    """Return combinations of `leaves` by `&` and `|`, and by `~` if asked."""

    def extend(children: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
        both = st.builds(lambda a, b: a & b, children, children)
        either = st.builds(lambda a, b: a | b, children, children)
        inverse = [st.builds(lambda a: ~a, children)] if negated else []
        return st.one_of(both, either, *inverse)

    return st.recursive(leaves, extend, max_leaves=5)


@st.composite
def histories(draw: st.DrawFn) -> tuple[Progress, Progress]:
    """Return (now, last) as a ring buffer of CAPACITY would count them."""
    before, since = draw(st.integers(0, 20)), draw(st.integers(0, 20))
    time_before, time_since = draw(st.integers(0, 20)), draw(st.integers(0, 20))
    drawn_before, drawn_since = draw(st.integers(0, 40)), draw(st.integers(0, 40))
    last = Progress(min(before, CAPACITY), before, before, drawn_before, drawn_before, time_before, time_before)
    last = last._replace(busy_ms=draw(st.integers(0, time_before)), forgiven=draw(st.integers(0, 9)))
    inserted, time = before + since, time_before + time_since
    drawn = drawn_before + drawn_since
    now = Progress(min(inserted, CAPACITY), inserted, inserted, drawn, drawn, time, time)
    busy, newest = draw(st.integers(0, time_since)), draw(st.integers(0, time) if inserted else st.just(0))
    return now._replace(busy_ms=last.busy_ms + busy, newest_ms=newest), last


def later(now: Progress, records: int, milliseconds: int) -> Progress:
    """Return the progress after further records and time, all else equal."""
    inserted = int(now.inserted) + records
    size, time = min(inserted, CAPACITY), now.time_ms + milliseconds
    newest = time if records else now.newest_ms
    return now._replace(size=size, seen=inserted, inserted=inserted, time_ms=time, newest_ms=newest)


@pytest.mark.parametrize("leaves", [COUNTING, COUNTING | TIMED, EITHER], ids=["counts", "counts and time", "either"])
@pytest.mark.parametrize("negated", [False, True], ids=["and, or", "and, or, not"])
def test_the_wake_hint_is_never_too_late(leaves: st.SearchStrategy[Condition], negated: bool) -> None:
    @settings(max_examples=300)
    @given(joined(leaves, negated), histories())
    def check(condition: Condition, history: tuple[Progress, Progress]) -> None:
        now, last = history
        decision = condition(now, last)
        if decision.go:
            return
        records, milliseconds = decision.wake
        # None claims that no number of records, or no time, changes the answer; 60 is more than any leaf asks for.
        for more in range(60 if records is None else records):
            for longer in {0, 1, 2, 5, MILLISECONDS, 60 if milliseconds is None else milliseconds - 1}:
                if milliseconds is None or longer < milliseconds:
                    assert not condition(later(now, more, longer), last).go

    check()


@given(joined(COUNTING), histories())
def test_asking_at_each_hint_finds_the_first_moment(condition: Condition, history: tuple[Progress, Progress]) -> None:
    now, last = history
    asked_at = 0
    while not (decision := condition(later(now, asked_at, 0), last)).go:
        assert decision.wake.records is not None
        asked_at += decision.wake.records
    assert not any(condition(later(now, more, 0), last).go for more in range(asked_at))


@given(joined(COUNTING | TIMED, negated=True), histories())
def test_asking_twice_changes_nothing(condition: Condition, history: tuple[Progress, Progress]) -> None:
    first, code = condition(*history), repr(condition)
    condition(Progress(size=99, inserted=99, time_ms=99), Progress())
    assert condition(*history) == first
    assert repr(condition) == code


CONDITIONS = [
    min_size(5),
    min_new(7),
    every_seconds(0.008),
    samples_per_insert(0.4, 3),
    samples_per_insert(0.4, 3, max_debt=2),
    max_duty(0.4),
    fresh(0.008),
    time_of_day(0, 0.002),
    time_of_day(0.002, 0.001),
    always(),
    when(is_even),
    min_size(5) & min_new(7) & always(),
    (min_size(5) | is_even) & ~every_seconds(0.008),
    ~(samples_per_insert(3, -3) | time_of_day(0, 12)) | ~always(),
    (max_duty(1 / 3) | ~fresh(0.003)) & samples_per_insert(3, max_debt=5),
]


def counters(seed: int, number: int) -> Progress:
    columns = jax.random.randint(jax.random.key(seed), (len(Progress._fields), number), 0, 16, jnp.int32)
    return Progress(*columns)


@pytest.mark.parametrize("condition", CONDITIONS, ids=repr)
def test_traced_once_and_mapped_it_says_what_it_says_on_ints(condition: Condition) -> None:
    traces: list[Any] = []

    @jax.jit
    def compiled(now: Progress, last: Progress) -> Any:
        traces.append(now)
        return condition.test(now, last)

    now, last = counters(0, 12), counters(1, 12)
    mapped = jax.vmap(condition.test)(now, last)
    assert (mapped.shape, mapped.dtype) == ((12,), jnp.bool_)
    for index in range(12):
        row, last_row = jax.tree.map(lambda column: column[index], (now, last))  # noqa: B023 - used at once
        plain = condition(row, last_row).go
        assert bool(compiled(row, last_row)) is bool(mapped[index]) is plain
    assert len(traces) == 1


@pytest.mark.parametrize("condition", CONDITIONS, ids=repr)
def test_what_is_let_go_is_the_same_when_mapped(condition: Condition) -> None:
    now, last = counters(3, 12), counters(4, 12)
    mapped = jnp.broadcast_to(jax.vmap(lambda *case: jnp.int32(condition.forgive(*case)))(now, last), (12,))
    for index in range(12):
        row, last_row = jax.tree.map(lambda column: column[index], (now, last))  # noqa: B023 - used at once
        settled = condition.settle(row, last_row)
        assert settled == row.as_ints()._replace(forgiven=int(last_row.forgiven) + int(mapped[index]))


@pytest.mark.parametrize("condition", CONDITIONS, ids=repr)
def test_it_traces_in_a_scan(condition: Condition) -> None:
    def step(carry: Progress, _: None) -> Any:
        return carry._replace(size=carry.size + 1), condition.test(carry, carry)

    start = jax.tree.map(lambda column: column[0], counters(2, 1))
    assert jax.lax.scan(step, start, length=3)[1].shape == (3,)
