"""What is pruned is what the policy says, and never the last good state or a block that a state needs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from pamiq_jax.checkpoint import Retention, StateInfo, StateStore, any_of, best, every_nth, latest_n
from pamiq_jax.errors import InvalidValueError
from tests.checkpoint.disk import MemoryDisk
from tests.checkpoint.values import assert_same

DIRECTORY = Path("/states")


def info(number: int, **metrics: Any) -> StateInfo:
    return StateInfo(number, float(number), {"metrics": metrics}, 0, 0)


def numbers(rule: Retention, states: list[StateInfo]) -> list[int]:
    return sorted(state.number for state in rule(states))


def test_rules_choose_by_number_and_by_metric() -> None:
    losses = [0.5, 0.1, math.nan, 0.1, 0.9, True, "low", None]
    states = [info(1 + index, loss=loss) for index, loss in enumerate(losses)]
    assert numbers(latest_n(3), states) == [6, 7, 8]
    assert numbers(latest_n(100), states) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert numbers(every_nth(3), states) == [3, 6]
    assert numbers(best("loss", "min"), states) == [4], "of equal ones the newer"
    assert numbers(best("loss", "min", 3), states) == [1, 2, 4]
    assert numbers(best("loss", "max", 2), states) == [1, 5]
    assert numbers(best("return", "max", 2), states) == []
    assert numbers(latest_n(1) | every_nth(4) | best("loss", "max"), states) == [4, 5, 8]
    assert numbers(any_of(latest_n(1), every_nth(4)), states) == [4, 8]
    assert numbers(best("loss", "max"), [StateInfo(1, 0.0, {}, 0, 0), StateInfo(2, 0.0, {"metrics": 3}, 0, 0)]) == []


def test_wrong_arguments_are_explained() -> None:
    with pytest.raises(InvalidValueError, match=r"latest_n\(count\) is 0, expected an integer from 1"):
        latest_n(0)
    with pytest.raises(InvalidValueError, match=r"every_nth\(nth\) is -1"):
        every_nth(-1)
    with pytest.raises(InvalidValueError, match=r"best\(mode\) is 'most', expected 'max' or 'min'"):
        best("loss", "most")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidValueError, match=r"any_of\(rules\) is \(\), expected one rule at least"):
        any_of()
    wrong: Any = 3
    with pytest.raises(InvalidValueError, match=r"any_of\(rules\) is 3, expected a retention"):
        latest_n(1) | wrong
    with pytest.raises(InvalidValueError, match=r"best\(metric\) is 3, expected a metric's name"):
        best(wrong, "min")
    with pytest.raises(InvalidValueError, match=r"prune\(keep\) is 3, expected a retention"):
        StateStore(DIRECTORY, MemoryDisk().files()).prune(wrong)


class KeepNothing(Retention):
    def __call__(self, states: Any) -> Any:
        return []


RULES = st.recursive(
    st.builds(latest_n, st.integers(1, 4))
    | st.builds(every_nth, st.integers(1, 4))
    | st.builds(best, st.just("loss"), st.sampled_from(["max", "min"]), st.integers(1, 3))
    | st.just(KeepNothing()),
    lambda rules: st.builds(any_of, rules, rules),
    max_leaves=3,
)


def value_of(seed: int) -> dict[str, Any]:
    """Return values of which some share blocks."""
    return {"a": np.full(24, seed % 3), "b": np.full(24, 100 + seed), "c": np.full(1, seed, np.int8)}


def blocks_of(store: StateStore) -> set[str]:
    manifests = store._directory.manifests()  # pyright: ignore[reportPrivateUsage]
    return {block for manifest in manifests for block in manifest.block_sizes()}


@hypothesis.given(
    rule=RULES,
    losses=st.lists(st.floats(allow_infinity=False) | st.none(), min_size=1, max_size=7),
    damage=st.dictionaries(st.integers(1, 7), st.sampled_from(["manifest", "no manifest", "block"]), max_size=3),
    rounds=st.integers(1, 2),
)
@hypothesis.settings(max_examples=150)
def test_pruning_keeps_what_it_must_and_nothing_else(
    rule: Retention, losses: list[float | None], damage: dict[int, str], rounds: int
) -> None:
    disk = MemoryDisk()
    files = disk.files()
    store = StateStore(DIRECTORY, files, block_bytes=64)
    for seed, loss in enumerate(losses):
        store.write(value_of(seed), facts={"metrics": {"loss": loss}}, created_at=seed)
    for number, kind in damage.items():
        if number <= len(losses):
            hurt(store, files, number, kind)
    before = {report.number for report in store.verify() if report.is_sound}
    wanted = {state.number for state in rule([state for state in store.states() if state.number in before])}
    wanted |= {max(before)} if before else set()
    damaged = {report.number for report in store.verify()} - before
    there = set(store._directory.blocks.sizes())  # pyright: ignore[reportPrivateUsage]
    for _ in range(rounds):
        report = store.prune(rule)
    assert set(report.kept) == wanted or rounds > 1
    after = {each.number for each in store.verify() if each.is_sound}
    assert set(report.kept) == after
    assert after >= ({max(before)} if before else set()), "the last good state is never removed"
    assert after == wanted or (rounds > 1 and after <= wanted)
    assert set(report.damaged) == damaged == {each.number for each in store.verify()} - after
    for number in after:
        assert_same(store.read(number), value_of(number - 1))
    left = set(store._directory.blocks.sizes())  # pyright: ignore[reportPrivateUsage]
    assert left == there & blocks_of(store), "what no state needs is swept, what a damaged one needs is not"


def hurt(store: StateStore, files: Any, number: int, kind: str) -> None:
    state = DIRECTORY / "states" / f"{number:08d}"
    if kind == "no manifest":
        files.remove(state / "manifest.json")
    elif kind == "manifest":
        files.remove(state / "manifest.json.sha256")
        files.close(files.create(state / "manifest.json.sha256"))
    else:
        manifest = store._directory.manifest(number)  # pyright: ignore[reportPrivateUsage]
        (block, *_) = manifest.packed  # its own: the seed is in it
        files.remove(DIRECTORY / "blocks" / block[:2] / block)


def test_pruning_twice_changes_nothing_more() -> None:
    store = StateStore(DIRECTORY, MemoryDisk().files(), block_bytes=64)
    for seed in range(9):
        store.write(value_of(seed), facts={}, created_at=seed)
    rule = latest_n(2) | every_nth(4)
    first, second = store.prune(rule), store.prune(rule)
    assert (first.kept, first.removed) == ((4, 8, 9), (1, 2, 3, 5, 6, 7))
    assert (second.kept, second.removed, second.freed_bytes) == ((4, 8, 9), (), 0)
    assert first.freed_bytes == 6 * (64 + 1), "a `b` is one block, three times; every `a` is still needed"


def test_a_save_after_pruning_writes_the_blocks_that_were_swept() -> None:
    store = StateStore(DIRECTORY, MemoryDisk().files(), block_bytes=64)
    for seed in (1, 2):
        store.write(value_of(seed), facts={}, created_at=seed)
    store.prune(latest_n(1))
    assert store.write(value_of(1), facts={}, created_at=3).written_bytes == 64 + 64 + 1
    assert all(report.is_sound for report in store.verify())
    assert [state.number for state in store.states()] == [2, 3]
