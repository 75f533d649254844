"""Priorities in a system: what a step returns decides what is sampled from the next chunk on."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pamiq_jax as pj
from pamiq_jax.data import mixed_buffer
from pamiq_jax.errors import InvalidValueError, StepStructureError
from tests.runtime.fakes import PATIENCE, assert_equal_trees, fed_system, learning_system
from tests.runtime.test_train import Bench

MODELS = {"policy": pj.Model(jnp.zeros(()), jnp.multiply)}


def loss_fn(params: Any, batch: Any, rng_key: jax.Array) -> Any:
    """The error of a record is its number, give or take what was learned; `drawn` says which were in the batch."""
    error = jnp.abs(batch.records - params["policy"])
    loss = jnp.mean(batch.weights * error)
    return loss, {"priorities": error, **{f"drawn{n}": jnp.sum(batch.records == n).astype(jnp.float32) for n in (1, 4)}}


TRAINER = pj.gradient_trainer(loss_fn, optax.sgd(0.0), trains=("policy",))


def in_python(trainer: pj.Trainer[Any, Any]) -> pj.Trainer[Any, Any]:
    return trainer._replace(step=jax.jit(trainer.step), compiled=False)


EACH = pytest.mark.parametrize(
    ("change", "placement"),
    [(lambda trainer: trainer, "device"), (lambda trainer: trainer, "host"), (in_python, "host")],
    ids=["compiled, on the device", "compiled, on the host", "in Python"],
)


def system(trainer: Any = TRAINER, buffer: Any = None, **changes: Any) -> pj.System:
    parts: dict[str, Any] = {"data": "x", "batch_size": 5, "steps": 4, "steps_per_chunk": 2, **changes}
    made = pj.prioritized_buffer(8, alpha=1.0, example=0.0) if buffer is None else buffer
    return fed_system(pj.Schedule(trainer, **parts), models=MODELS, buffers={"x": made})


def masses(bench: Bench) -> list[float]:
    state = bench.learner.buffers["x"].state
    return state.sums[8 : 8 + 5].tolist()


@EACH
def test_records_of_larger_error_are_sampled_more_often(change: Any, placement: Any) -> None:
    bench = Bench(system(change(TRAINER), pj.prioritized_buffer(8, alpha=1.0, placement=placement, example=0.0)))
    bench.feed(5)
    first = bench.tick().metrics
    assert "priorities" not in first
    assert masses(bench) == [0.0, 1.0, 2.0, 3.0, 4.0]
    counts = np.zeros(2)
    for _ in range(30):
        report = bench.tick()
        assert report.error is None
        counts += [float(report.metrics["drawn1"]), float(report.metrics["drawn4"])]
    share = counts / (30 * 5)
    np.testing.assert_allclose(share, [0.1, 0.4], atol=0.05)  # of 0 + 1 + 2 + 3 + 4
    assert bench.run().prefetched is None  # slots must not change between sampling and update


def test_they_count_from_the_next_chunk_on_and_a_later_step_wins() -> None:
    def step(state: Any, batch: Any) -> Any:
        count = state.step + 1
        priorities = jnp.full(batch.weights.shape, count, jnp.float32)
        return state.replace(step=count), {"priorities": priorities, "sum": jnp.sum(batch.weights)}

    bench = Bench(system(TRAINER._replace(step=step), steps=4, steps_per_chunk=4))
    bench.feed(5)
    bench.tick()
    assert masses(bench) == [4.0] * 5  # a batch of as many strata as records has each of them


def test_a_record_that_came_since_keeps_the_priority_of_a_new_one() -> None:
    bench = Bench(system(buffer=pj.prioritized_buffer(8, alpha=1.0, placement="host", example=0.0)))
    bench.feed(5)
    bench.tick()
    bench.cells.collectors["x"].collect(7.0, version=0)
    bench.tick()  # draws from six records; the newest has the largest priority so far, 4, unless it was drawn
    state = bench.learner.buffers["x"].state
    assert state.ring.records.data[5] == 7.0
    assert float(state.sums[8 + 5]) in (4.0, 7.0)


def test_runs_repeat_bit_for_bit_and_device_and_host_are_alike() -> None:
    def loss_fn(params: Any, batch: Any, rng_key: jax.Array) -> Any:
        error = jnp.mean((params["policy"][None] - jnp.tanh(batch.records["observation"])) ** 2, axis=1)
        return jnp.mean(batch.weights * error), {"priorities": jnp.sqrt(error)}

    trainer = pj.gradient_trainer(loss_fn, optax.adam(0.05), trains=("policy",))
    schedule = pj.Schedule(trainer, data="seen", batch_size=4, steps=4, steps_per_chunk=2, when=pj.min_new(3))
    first, second, host = (
        pj.run_lockstep(
            learning_system(
                buffers={"seen": pj.prioritized_buffer(16, placement=placement)}, trainers={"fit": schedule}
            ),
            20,
        )
        for placement in ("device", "device", "host")
    )
    assert first.snapshot.version > 3
    for other in (second, host):
        assert_equal_trees((first.learner, first.metrics), (other.learner, other.metrics))


def two_sources(metrics: Any, **buffers: Any) -> pj.System:
    def step(state: Any, batch: Any) -> Any:
        return state.replace(step=state.step + 1), metrics(batch)

    made = {"x": pj.prioritized_buffer(8, alpha=1.0, example=0.0), "y": pj.ring_buffer(8, example=0.0), **buffers}
    schedule = pj.Schedule(TRAINER._replace(step=step), data={"a": "x", "b": "y"}, batch_size={"a": 5, "b": 3})
    return fed_system(schedule, models=MODELS, buffers=made)


def test_one_of_several_sources() -> None:
    bench = Bench(two_sources(lambda batch: {"priorities": {"a": 2 * batch["a"].records}, "b": jnp.mean(batch["b"])}))
    bench.feed(5)
    bench.cells.collectors["y"].collect(1.0, version=0)
    assert bench.tick().error is None
    assert masses(bench) == [0.0, 2.0, 4.0, 6.0, 8.0]


def test_each_part_of_a_mix_gets_its_own() -> None:
    parts = [pj.prioritized_buffer(8, alpha=1.0, example=0.0), pj.prioritized_buffer(16, alpha=0.5)]
    bench = Bench(system(buffer=mixed_buffer(parts, [1, 1]), batch_size=10))
    bench.feed(5)
    bench.tick()
    ours, others = bench.learner.buffers["x"].state
    np.testing.assert_allclose(ours.sums[8 : 8 + 5], np.arange(5.0))
    np.testing.assert_allclose(others.sums[16 : 16 + 5], np.sqrt(np.arange(5.0)), rtol=1e-6)


def test_storing_them_copies_no_records() -> None:
    buffer = pj.prioritized_buffer(4096, example=np.zeros(256, np.float32))
    step = TRAINER._replace(step=lambda state, batch: (state, {"priorities": batch.weights}))
    bench = Bench(system(step, buffer))
    bench.cells.collectors["x"].collect(np.ones(256, np.float32), version=0)
    where: list[int] = []
    for _ in range(3):
        bench.tick()
        where.append(bench.learner.buffers["x"].state.ring.records.data.unsafe_buffer_pointer())
    assert len(set(where)) == 1


@EACH
def test_nothing_compiles_while_the_agent_acts(change: Any, placement: Any) -> None:
    def step(state: Any, batch: Any) -> Any:
        return state.replace(step=state.step + np.int32(1)), {"priorities": batch.weights}

    step_once = jax.jit(step)
    buffer = pj.prioritized_buffer(8, placement=placement, example=0.0)
    launched = system(TRAINER._replace(step=step_once, compiled=change(TRAINER).compiled), buffer)
    jax.clear_caches()
    # What is not compiled here is the user's own to compile before.
    jax.block_until_ready(step_once(*example_arguments(launched)))
    with pj.launch(launched, strict=True) as run:
        run.wait_until_ready()
        for value in range(5):
            run.collect("x", float(value))
        run.wait_for_version(4, PATIENCE)
        assert run.status.compiles_after_ready == 0


def example_arguments(launched: pj.System) -> Any:
    compiled = pj.compile_system(launched)
    buffer, state = launched.buffers["x"], compiled.learner.buffers["x"].state
    drawn = jax.jit(lambda state: buffer.sample(state, 5, 0, jax.random.key(0)))(state)
    return compiled.learner.trainers["fit"].state, drawn._replace(records=drawn.records.data)


class TestErrors:
    SILENT = pj.gradient_trainer(
        lambda params, batch, key: (jnp.mean(batch.records) * params["policy"], {}), optax.sgd(0.0), trains=("policy",)
    )

    def test_a_buffer_that_nobody_gives_any(self) -> None:
        match = r"buffer 'x' samples by priorities, but no step of 'fit' returns any; return .*or use a ring_buffer"
        with pytest.raises(StepStructureError, match=match):
            pj.compile_system(system(self.SILENT))

    def test_it_is_enough_that_one_of_its_trainers_does(self) -> None:
        parts = {"data": "x", "batch_size": 5}
        trainers = {"silent": pj.Schedule(self.SILENT, **parts), "fit": pj.Schedule(TRAINER, **parts)}
        buffers = {"x": pj.prioritized_buffer(8, example=0.0)}
        compiled = pj.compile_system(fed_system(models=MODELS, trainers=trainers, buffers=buffers))
        assert set(compiled.programs.trainers) == {"silent", "fit"}
        assert set(compiled.programs.update) == {"x"}

    def test_a_batch_that_is_taken_for_its_records(self) -> None:
        trainer = pj.gradient_trainer(
            lambda params, batch, key: (jnp.mean(batch["x"]) * params["policy"], {}), optax.sgd(0.0), trains=("policy",)
        )
        buffer = pj.prioritized_buffer(8, example={"x": 0.0})
        with pytest.raises(InvalidValueError, match=r"PrioritizedBatch field is 'x', .*; write batch.records\['x'\]"):
            pj.compile_system(system(trainer, buffer))

    def test_a_buffer_that_takes_none(self) -> None:
        trainer = TRAINER._replace(step=lambda state, batch: (state, {"priorities": batch}))
        with pytest.raises(StepStructureError, match="no buffer of its batch takes any; sample from a prioritized_b"):
            pj.compile_system(system(trainer, pj.ring_buffer(8, example=0.0)))

    def test_a_source_whose_buffer_takes_none(self) -> None:
        wrong = two_sources(lambda batch: {"priorities": {"b": batch["b"]}})
        with pytest.raises(StepStructureError, match=r"priorities for 'b', whose buffer takes none; .*\['a'\]"):
            pj.compile_system(wrong)

    def test_another_shape_in_python(self) -> None:
        step = TRAINER._replace(step=lambda state, batch: (state, {"priorities": np.ones(2, np.float32)}))
        bench = Bench(system(step._replace(compiled=False)))
        bench.feed(5)
        assert "as float32[2], expected float32[5]" in str(bench.tick().error)

    def test_a_buffer_that_does_not_say_which_records_it_drew(self) -> None:
        buffer = pj.prioritized_buffer(8, example=0.0)
        silent = buffer._replace(
            sample=pj.ring_buffer(8).sample, init=pj.ring_buffer(8).init, add=pj.ring_buffer(8).add, can_sample=None
        )
        with pytest.raises(InvalidValueError, match=r"buffer 'x' sample is 'Record', expected a batch with the field"):
            pj.compile_system(system(buffer=silent))
