"""The contract of conditions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax.conditions import Condition, Decision, Progress, Wake, when
from pamiq_jax.conditions.base import ConditionLike
from pamiq_jax.errors import ContractError
from pamiq_jax.testing.functions import check_traced, promised, require

type History = tuple[Progress, Progress]

_TIMES = (0, 1, 7, 100, 999, 1_000, 5_000, 60_000, 3_600_000, 86_400_000)
_DAY = 86_400


def check_condition(condition: ConditionLike, *, capacity: int = 8, histories: int = 64, seed: int = 0) -> None:
    """Raise if a condition breaks the contract that the library builds on.

    It is pure: asking twice, in another order, changes nothing. `test` means the same on ints, under `jit`, `vmap`,
    `lax.scan` and `eval_shape`. Each decision has a reason. What `never` and `always` claim is true, and no hint to
    wake comes too late, as far as a number of histories shows, spread from nothing to several capacities.

    Args:
        condition: a condition, or a callable `(now, last) -> bool`.
        capacity: records that the buffer holds; choose it near the numbers in the condition.
        histories: how many pairs of progresses to try.
        seed: for choosing them.

    Raises:
        ContractError: naming the function and the promise.

    Example:
        >>> from pamiq_jax.conditions import min_new, min_size
        >>> check_condition(min_size(5) & min_new(3))
    """
    checked = condition if isinstance(condition, Condition) else when(condition)
    cases = _histories(capacity, histories, seed)
    with promised("condition", "it can be asked"):
        decisions = [checked(*case) for case in cases]
    for case, decision in zip(cases, decisions, strict=True):
        _check_decision(decision, case)
    # Backwards, so that a cursor which moves when it is asked is somewhere else now.
    for case, decision in reversed(list(zip(cases, decisions, strict=True))):
        again = checked(*case)
        problem = None if again == decision else f"{_place(case)}: first {decision}, then {again}"
        require("condition", "asking changes nothing", problem)
    _check_claims(checked, capacity, cases, decisions)
    for case, decision in zip(cases, decisions, strict=True):
        if not decision.go:
            _check_hint(checked, decision.wake, case, capacity)
    _check_test_is_traceable(checked, cases, decisions)


def _histories(capacity: int, number: int, seed: int) -> list[History]:
    """Return progresses as a ring buffer of this capacity would count them, the very first among them."""
    rng = np.random.default_rng(seed)
    counts = sorted({0, 1, 2, 3, 5, capacity // 2, capacity - 1, capacity, capacity + 1, 2 * capacity, 3 * capacity})

    def advanced(progress: Progress) -> Progress:
        records, drawn, time = (int(rng.choice(choices)) for choices in (counts, counts, _TIMES))
        drawn_progress = progress._replace(sampled=progress.sampled + drawn, steps=progress.steps + drawn)
        return _later(drawn_progress, records, time, capacity)

    cases = [(Progress(), Progress())]
    while len(cases) < number:
        last = advanced(Progress(second_of_day=int(rng.integers(_DAY))))
        cases.append((advanced(last), last))
    return cases


def _later(now: Progress, records: int, milliseconds: int, capacity: int) -> Progress:
    inserted = int(now.inserted) + records
    return now._replace(
        size=min(inserted, capacity),
        seen=inserted,
        inserted=inserted,
        time_ms=int(now.time_ms) + milliseconds,
        second_of_day=(int(now.second_of_day) + milliseconds // 1000) % _DAY,
    )


def _place(case: History) -> str:
    now, last = case
    return f"now={tuple(now)}, last={tuple(last)} (fields {', '.join(Progress._fields)})"


def _check_decision(decision: Decision, case: History) -> None:
    has_reason = decision.reason.strip() != ""
    require("explain", "each decision has a reason", None if has_reason else f"{_place(case)}: {decision.reason!r}")
    too_soon = [hint for hint in decision.wake if hint is not None and hint < 1]
    problem = f"{_place(case)}: {decision.wake} would ask without end" if too_soon else None
    require("wake", "its numbers are at least 1", problem)


def _check_claims(condition: Condition, capacity: int, cases: list[History], decisions: list[Decision]) -> None:
    for name, claim, refuting in (
        ("never", condition.never(capacity), True),
        ("always", condition.always(capacity), False),
    ):
        for case, decision in zip(cases, decisions, strict=True):
            if claim is not None and decision.go is refuting:
                raise ContractError(name, "its claim is true", f"{claim!r}, but {_place(case)} gives {decision.go}")


def _check_hint(condition: Condition, wake: Wake, case: History, capacity: int) -> None:
    now, last = case
    # None claims that the answer does not change by that alone, however much of it comes.
    for records in _moments_before(wake.records, 4 * capacity):
        for milliseconds in _moments_before(wake.milliseconds, _DAY * 1000):
            if condition(_later(now, records, milliseconds, capacity), last).go:
                detail = f"{_place(case)}: {wake}, but {records} records and {milliseconds} ms later it holds"
                raise ContractError("wake", "it does not come too late", detail)


def _moments_before(hint: int | None, most: int) -> list[int]:
    end = most if hint is None else hint - 1
    return sorted({0, min(1, end), end // 2, end})


def _check_test_is_traceable(condition: Condition, cases: list[History], decisions: list[Decision]) -> None:
    arrays = [jax.tree.map(jnp.int32, case) for case in cases]
    columns = jax.tree.map(lambda *rows: jnp.stack(rows), *arrays)
    answers = jnp.array([decision.go for decision in decisions])
    check_traced("test", condition.test, arrays[0], answers[0], later=arrays[-1])
    with promised("test", "it works under jax.vmap"):
        _check_answers("vmap(f) == f", jax.jit(jax.vmap(condition.test))(*columns), answers, cases)
    with promised("test", "it works under jax.lax.scan"):
        scanned = jax.lax.scan(lambda carry, case: (carry, condition.test(*case)), None, columns)[1]
        _check_answers("lax.scan(f) == f", scanned, answers, cases)


def _check_answers(promise: str, answers: Any, expected: jax.Array, cases: list[History]) -> None:
    actual = jnp.broadcast_to(jnp.asarray(answers), expected.shape)
    for index in np.flatnonzero(np.asarray(actual != expected)):
        raise ContractError("test", promise, f"{_place(cases[index])}: {actual[index]}, expected {expected[index]}")
