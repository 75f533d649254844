"""Each check of `check_condition` catches a condition that breaks just that promise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, override

import pytest

from pamiq_jax.conditions import Condition, Progress, Wake, min_size, when
from pamiq_jax.errors import ContractError
from pamiq_jax.testing import check_condition


@dataclasses.dataclass(frozen=True)
class Broken(Condition):
    """`min_size(5)`, with one of its answers replaced."""

    reason: str = "some"
    hint: Wake = Wake(1)  # noqa: RUF009 - immutable
    claim_never: str | None = None
    claim_always: str | None = None

    @override
    def test(self, now: Progress, last: Progress) -> Any:
        return now.size >= 5

    @override
    def explain(self, now: Progress, last: Progress) -> str:
        return self.reason

    @override
    def wake(self, now: Progress, last: Progress) -> Wake:
        return self.hint

    @override
    def never(self, capacity: int) -> str | None:
        return self.claim_never

    @override
    def always(self, capacity: int) -> str | None:
        return self.claim_always


def moves_a_cursor() -> Condition:
    cursor = [0]

    def new_records(now: Progress, last: Progress) -> bool:
        is_new = int(now.inserted) > cursor[0]
        cursor[0] = int(now.inserted)
        return is_new

    return when(new_records)


def test_the_condition_that_is_broken_below_is_sound_before() -> None:
    check_condition(Broken())


BROKEN_CONDITIONS: dict[str, tuple[Callable[[], Any], str]] = {
    "cursor": (moves_a_cursor, "condition: .*asking changes nothing: now=.*: first Decision.*, then Decision"),
    "raises": (lambda: when(lambda now, last: now.nothing), "condition: .*it can be asked: AttributeError"),
    "no reason": (lambda: Broken(reason=" "), "explain: .*each decision has a reason: now="),
    "no wait": (lambda: Broken(hint=Wake(records=0)), "wake: .*its numbers are at least 1: now=.* without end"),
    "late": (lambda: Broken(hint=Wake(records=9)), "wake: .*does not come too late: now=.* ms later it holds"),
    "never wakes": (lambda: Broken(hint=Wake()), "wake: .*does not come too late: now="),
    "never": (
        lambda: Broken(claim_never="too small"),
        "never: .*its claim is true: 'too small', but now=.* gives True",
    ),
    "always": (lambda: Broken(claim_always="sure"), "always: .*its claim is true: 'sure', but now=.* gives False"),
    "no trace": (lambda: when(lambda now, last: int(now.size) > 2), "test: .*it works under jax.jit: "),
    "jit differs": (
        lambda: when(lambda now, last: now.size > (0 if isinstance(now.size, int) else -1)),
        r"test: .*jit\(f\) == f: leaf the tree itself differs",
    ),
    "int32 differs": (
        lambda: when(lambda now, last: now.time_ms * 1_000 >= 60_000_000, recheck_seconds=0.001),
        r"test: .*vmap\(f\) == f: now=",
    ),
}


@pytest.mark.parametrize("name", BROKEN_CONDITIONS)
def test_broken_condition_is_caught(name: str) -> None:
    build, match = BROKEN_CONDITIONS[name]
    with pytest.raises(ContractError, match=match):
        check_condition(build())


def test_choosing_the_capacity_brings_the_histories_near_the_numbers() -> None:
    claims_too_much = dataclasses.replace(Broken(), claim_never="never more than 4")
    check_condition(claims_too_much, capacity=4)
    with pytest.raises(ContractError, match=r"never: .*its claim is true"):
        check_condition(claims_too_much, capacity=5)
    check_condition(min_size(5_000), capacity=10_000)
