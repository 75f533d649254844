"""What a trainer is owed, and what a cap on it lets go."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pamiq_jax.conditions import Condition, Progress, always, min_new, samples_per_insert, time_of_day

RATIOS = st.sampled_from([Fraction(1, 4), Fraction(2, 5), Fraction(1), Fraction(3)])
NIGHT = time_of_day(22, 6)


def drawn_at_once(condition: Condition, now: Progress, last: Progress, run: int) -> tuple[Progress, Progress]:
    """Return (now, last) after as many runs as may start without a further record."""
    while condition(now, last).go:
        last = condition.settle(now, last)
        now = now._replace(sampled=now.sampled + run)
    return now, last


@pytest.mark.parametrize(
    ("condition", "drawn"), [(samples_per_insert(4), 4000), (samples_per_insert(4, max_debt=64), 64)]
)
def test_a_long_wait_ends_in_a_burst_only_without_a_cap(condition: Condition, drawn: int) -> None:
    waiting = condition & NIGHT
    day, night = (Progress(inserted=1000, second_of_day=hour * 3600) for hour in (12, 23))
    assert not waiting(day, Progress()).go
    now, last = drawn_at_once(waiting, night, Progress(), run=32)
    assert now.sampled == drawn + 32  # what is owed, then one run ahead as the tolerance of 0 has it
    assert last.forgiven == 4000 - drawn


def test_the_reason_says_what_is_let_go() -> None:
    condition = samples_per_insert(4, max_debt=64)
    now = Progress(inserted=100, sampled=300)
    assert condition(now, Progress()).reason == "300 of 364 samples that 100 records allow, 36 forgiven"
    last = condition.settle(now, Progress())
    assert condition(now, last).reason == "300 of 364 samples that 100 records allow, 36 forgiven"
    later = condition(now._replace(sampled=396), last)
    assert (later.go, later.reason) == (False, "396 of 364 samples that 100 records allow, 36 forgiven")
    assert later.wake.records == 8


def test_settling_at_the_same_moment_again_lets_nothing_more_go() -> None:
    condition = samples_per_insert(0.4, 3, max_debt=5)
    now = Progress(inserted=1000)
    last = condition.settle(now, Progress())
    assert last == now._replace(forgiven=398)
    assert condition.settle(now, last) == last


def test_a_condition_that_caps_nothing_settles_on_now() -> None:
    now = Progress(inserted=1000, sampled=3, forgiven=99)
    for condition in (always(), min_new(3), samples_per_insert(4), ~samples_per_insert(4) & NIGHT):
        assert condition.settle(now, Progress(forgiven=7)) == now._replace(forgiven=7)


@pytest.mark.parametrize(
    "join", [lambda a, b: a & b, lambda a, b: a | b, lambda a, b: ~a & ~b], ids=["and", "or", "not"]
)
def test_of_several_caps_none_is_exceeded(join: Condition) -> None:
    generous, strict = samples_per_insert(4, max_debt=100), samples_per_insert(4, max_debt=30)
    last = join(generous, strict).settle(Progress(inserted=100), Progress())
    assert last.forgiven == 370
    assert generous.forgive(Progress(inserted=100), last) == strict.forgive(Progress(inserted=100), last) == 0


@given(RATIOS, st.integers(-9, 9), st.integers(0, 20), st.integers(1, 12), st.lists(st.integers(0, 30), max_size=30))
def test_in_no_window_is_more_drawn_than_the_cap_and_what_came(
    ratio: Fraction, tolerance: int, max_debt: int, run: int, arrivals: list[int]
) -> None:
    condition = samples_per_insert(float(ratio), tolerance, max_debt=max_debt)
    now, last = Progress(), Progress()
    history = [now]
    for records in arrivals:
        now = now._replace(inserted=now.inserted + records)
        now, last = drawn_at_once(condition, now, last, run)
        history.append(now)
    for index, start in enumerate(history):
        for end in history[index:]:
            came, drawn = end.inserted - start.inserted, end.sampled - start.sampled
            assert drawn <= max_debt + 1 + ratio * came + run  # 1: what is owed is counted in whole samples


@given(RATIOS, st.integers(-9, 9), st.integers(1, 12), st.lists(st.integers(0, 3), max_size=40))
def test_a_trainer_that_keeps_up_is_forgiven_nothing(
    ratio: Fraction, tolerance: int, run: int, arrivals: list[int]
) -> None:
    capped = samples_per_insert(float(ratio), tolerance, max_debt=run + floor(3 * ratio))
    plain = samples_per_insert(float(ratio), tolerance)
    start = Progress(sampled=max(0, tolerance))
    states = {capped: (start, Progress()), plain: (start, Progress())}
    for records in arrivals:
        for condition, (now, last) in states.items():
            states[condition] = drawn_at_once(condition, now._replace(inserted=now.inserted + records), last, run)
    assert states[capped] == states[plain]


def test_what_is_let_go_survives_counters_that_wrap_around() -> None:
    condition = samples_per_insert(32, max_debt=64)
    now = Progress(inserted=jnp.int32(100_000_000), sampled=jnp.int32(32 * 100_000_000 - 2**32) - 100)
    assert jax.jit(condition.forgive)(now, Progress()) == 36
    assert bool(condition.test(now, Progress(forgiven=jnp.int32(100))))
    assert not bool(condition.test(now, Progress(forgiven=jnp.int32(101))))
