"""Batches from the host's memory are gathered one chunk ahead, and nobody can tell but by the clock."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pamiq_jax as pj
from pamiq_jax.data import Chunk
from pamiq_jax.trainer.compile import own
from tests.runtime.fakes import assert_equal_trees, fed_system, learning_system, nan_trainer
from tests.runtime.test_train import Bench


def seeing_trainer() -> pj.Trainer[Any, Any]:
    """Return a trainer whose metric says what was in its batches: their largest record."""

    def step(state: Any, batch: Any) -> Any:
        return state.replace(step=state.step + 1), {"largest": jnp.max(batch)}

    return nan_trainer(10**6)._replace(step=step)


def system(placement: Any = "host", **changes: Any) -> pj.System:
    parts: dict[str, Any] = {"batch_size": 64, "steps": 3, "steps_per_chunk": 1, "when": pj.min_size(2), **changes}
    buffers = {"x": pj.ring_buffer(4, placement=placement, example=0.0)}
    return fed_system(pj.Schedule(parts.pop("trainer", seeing_trainer()), data="x", **parts), buffers=buffers)


def largest_seen(bench: Bench, ticks: int, *, first: int = 0) -> list[float]:
    """Return what each tick's batch has at most, while two records of a number come in before it, the next one each."""
    seen: list[float] = []
    for value in range(first, first + ticks):
        for _ in range(2):
            bench.cells.collectors["x"].collect(float(value), version=0)
        seen.append(float(bench.tick().metrics["largest"]))
    return seen


def test_within_a_run_batches_are_those_of_a_chunk_before() -> None:
    assert largest_seen(Bench(system("device")), 6) == [0, 1, 2, 3, 4, 5]
    assert largest_seen(Bench(system("host")), 6) == [0, 0, 1, 3, 3, 4]  # each run begins afresh


def test_it_is_kept_in_the_state_until_the_run_ends() -> None:
    bench = Bench(system())
    assert bench.run().prefetched is None
    bench.feed(2)
    kept: list[bool] = []
    for _ in range(6):
        bench.tick()
        kept.append(bench.run().prefetched is not None)
    assert kept == [True, True, False] * 2


def test_a_run_goes_on_from_a_state_that_was_saved_with_it() -> None:
    bench = Bench(system())
    bench.feed(2)
    bench.tick()
    run, buffer = bench.run(), bench.learner.buffers["x"]
    saved = bench.learner.with_trainer("fit", run._replace(state=own(run.state), prefetched=own(run.prefetched)))
    saved = saved.with_buffer("x", buffer._replace(state=own(buffer.state)))
    went_on = largest_seen(bench, 4, first=7)
    bench.learner = saved
    assert largest_seen(bench, 4, first=7) == went_on == [1, 7, 9, 9]


def test_a_trainer_that_fails_keeps_nothing() -> None:
    def step(state: Any, batch: Any) -> Any:
        if float(jnp.max(batch)) > 1:
            raise ValueError("too large")
        return state, {}

    bench = Bench(system(trainer=nan_trainer(10**6)._replace(step=step, compiled=False)))
    for value in (1.0, 2.0, 2.0, 2.0):
        bench.cells.collectors["x"].collect(value, version=0)
        bench.cells.collectors["x"].collect(value, version=0)
        report = bench.tick()
        if report.error is not None:
            break
    assert str(report.error) == "too large"
    assert bench.run().prefetched is None


@pytest.mark.parametrize("sampling", ["epochs", "in_order"])
def test_where_the_buffer_rests_within_a_run_nothing_changes(sampling: Any) -> None:
    device, host = (
        pj.run_lockstep(
            learning_system(buffers={"seen": pj.ring_buffer(50, sampling=sampling, placement=placement)}), 12
        )
        for placement in ("device", "host")
    )
    assert_equal_trees((device.learner, device.metrics), (host.learner, host.metrics))


def test_lockstep_repeats_bit_for_bit_and_ends_in_the_middle_of_a_run() -> None:
    first, second = (
        pj.run_lockstep(learning_system(buffers={"seen": pj.ring_buffer(50, placement="host")}), 15) for _ in range(2)
    )
    assert first.learner.trainers["fit"].prefetched is not None
    assert_equal_trees((first.learner, first.metrics), (second.learner, second.metrics))


def test_adding_right_after_a_gather_has_started_changes_none_of_its_bits() -> None:
    rows, steps = 2048, 32
    schedule = pj.Schedule(nan_trainer(10**6), data="x", batch_size=64, steps=steps, steps_per_chunk=steps)
    buffers = {"x": pj.ring_buffer(rows, placement="host", example=np.zeros(512, np.float32))}
    parts: dict[str, Any] = {"buffers": buffers, "queues": {"x": pj.Queue(capacity=rows, chunk=rows)}}
    with jax.default_device(jax.devices()[1]):  # the trainer is on another device than the host's memory
        compiled = pj.compile_system(fed_system(schedule, **parts))
    add, gather = compiled.programs.add["x"], compiled.programs.trainers["fit"].gather
    assert gather is not None
    rng_key, state = compiled.learner.trainers["fit"].data_key, compiled.learner.buffers["x"].state

    def chunk(number: int) -> Chunk[Any]:
        values = np.random.default_rng(number).normal(size=(rows, 512)).astype(np.float32)
        return Chunk(pj.Record(values, np.zeros(rows, np.int32), np.zeros(rows, np.bool_)), rows)

    before = add(state, chunk(0))
    for number in range(1, 6):
        expected = jax.device_get(gather({"": before}, number, rng_key))
        started = gather({"": before}, number, rng_key)
        after = add(before, chunk(number))  # donates the state, and writes over every record
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
        assert {leaf.device for leaf in jax.tree.leaves(started)} == {jax.devices()[1]}
        assert_equal_trees(jax.device_get(started), expected)
        before = after
