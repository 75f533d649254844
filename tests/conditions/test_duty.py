"""The share of the time that a trainer is busy."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import jax.numpy as jnp
from hypothesis import given
from hypothesis import strategies as st

from pamiq_jax.conditions import Progress, max_duty

SHARES = st.builds(Fraction, st.integers(1, 8), st.integers(9, 1000))


@given(SHARES, st.lists(st.tuples(st.integers(0, 50), st.integers(0, 200)), min_size=1, max_size=20))
def test_between_two_starts_no_more_than_the_share_is_spent(share: Fraction, works: list[tuple[int, int]]) -> None:
    condition = max_duty(float(share))
    now, last = Progress(), Progress()
    for busy, waited in works:
        assert condition(now, last).go
        last = condition.settle(now, last)
        now = now._replace(time_ms=now.time_ms + busy + waited, busy_ms=now.busy_ms + busy)
        if not (decision := condition(now, last)).go:
            assert decision.wake.records is None
            assert decision.wake.milliseconds is not None
            now = now._replace(time_ms=now.time_ms + decision.wake.milliseconds)
        assert now.busy_ms - last.busy_ms <= share * (now.time_ms - last.time_ms)
    assert now.busy_ms <= share * now.time_ms


@given(SHARES, st.integers(0, 2**31 - 1), st.integers(-1, 1))
def test_it_is_exact_in_int32_for_any_time(share: Fraction, passed: int, more: int) -> None:
    condition, busy = max_duty(float(share)), floor(share * passed) + more
    now = Progress(time_ms=passed, busy_ms=busy)
    traced = condition.test(now._replace(time_ms=jnp.int32(passed), busy_ms=jnp.int32(busy)), Progress())
    assert bool(traced) is condition(now, Progress()).go is (more <= 0)


def test_rest_is_not_saved_up() -> None:
    condition, last = max_duty(0.5), Progress(time_ms=10**7)
    assert not condition(Progress(time_ms=10**7 + 100, busy_ms=100), last).go
