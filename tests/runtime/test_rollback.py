"""A trainer that fails begins anew from its last good state, and then no more: stepped by hand on a virtual clock."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pamiq_jax as pj
from pamiq_jax.errors import (
    InvalidValueError,
    NonFiniteError,
)
from pamiq_jax.lifecycle import TrainerEvent, TrainerPhase
from tests.runtime.fakes import assert_equal_trees, fed_system, learning_system, nan_trainer, python_trainer
from tests.runtime.test_train import WHOLE_RUN, Bench, counting, schedule, several

START, SET_UP, ROLL_BACK, FAIL = TrainerEvent.START, TrainerEvent.SET_UP, TrainerEvent.ROLL_BACK, TrainerEvent.FAIL


def failing(*calls: int, of: Callable[[int], None] = lambda number: None) -> pj.Trainer[Any, Any]:
    """Return a trainer in Python that raises at some of its calls, counted from 1; its state counts steps."""
    made: list[int] = []

    def on_step(number: int) -> None:
        made.append(number)
        of(number)
        if len(made) in calls:
            raise ValueError(f"call {len(made)}")

    return python_trainer(on_step)


def bench_of(trainer: pj.Trainer[Any, Any], policy: pj.FaultPolicy, records: int = 2, **changes: Any) -> Bench:
    bench = Bench(fed_system(schedule(trainer, **changes)), faults=policy)
    bench.feed(records)
    return bench


class TestBackoff:
    def test_it_doubles_up_to_a_limit_and_a_good_run_ends_it(self) -> None:
        numbers: list[int] = []
        policy = pj.keep_acting(backoff_seconds=1.0, max_backoff_seconds=3.0)
        bench = bench_of(failing(3, 4, 5, 7, of=numbers.append), policy)
        assert [bench.tick().version for _ in range(2)] == [1, 2]
        bench.events.clear()
        waits: list[Any] = []
        for failures in (1, 2, 3):
            report = bench.tick()
            assert (str(report.error), report.version, bench.run().phase) == (
                f"call {failures + 2}",
                None,
                TrainerPhase.WAITING,
            )
            assert (bench.run().faults.restarts, bench.run().faults.rollbacks) == (failures, failures)
            waits.append(bench.tick().wake.milliseconds)
            bench.clock.advance(bench.run().faults.retry_at - bench.clock.now() - 0.25)
            waits.append(bench.tick().wake.milliseconds)
            bench.clock.advance(0.25)
        assert waits == [1000, 250, 2000, 250, 3000, 250]
        assert bench.clock.now() == 6.0
        assert [event for _, event in bench.events] == [START, SET_UP, ROLL_BACK] * 3
        assert bench.tick().version == 3
        assert (bench.run().faults.restarts, bench.run().faults.rollbacks, bench.run().faults.error) == (0, 3, "")
        bench.tick()
        assert bench.tick().wake.milliseconds == 1000  # the first in a row again
        assert numbers == [1, 2, 3, 3, 3, 3, 4]  # each time from the state of the last good run

    def test_the_reason_says_when_and_why(self) -> None:
        bench = bench_of(failing(1, 2, 3), pj.keep_acting(restarts=2, backoff_seconds=1.5))
        reasons: list[str] = []
        for _ in range(3):
            bench.tick()
            reasons.append(bench.run().reason)
            bench.clock.advance(0.5)
            bench.tick()
            reasons.append(bench.run().reason)
            bench.clock.advance(10.0)
        assert reasons == [
            "restarts in 1.5 s after 1 failure: ValueError: call 1",
            "restarts in 1.0 s after 1 failure: ValueError: call 1",
            "restarts in 3.0 s after 2 failures in a row: ValueError: call 2",
            "restarts in 2.5 s after 2 failures in a row: ValueError: call 2",
            "quarantined after 2 restarts: ValueError: call 3",
            "quarantined after 2 restarts: ValueError: call 3",
        ]

    def test_no_number_is_too_large(self) -> None:
        policy = pj.keep_acting(restarts=10**6, backoff_factor=1e9, max_backoff_seconds=7.0)
        assert [policy.backoff(number) for number in (1, 2, 10**6)] == [1.0, 7.0, 7.0]


class TestLastGoodState:
    @pytest.mark.parametrize(
        ("function", "events"),
        [
            ("setup", [START]),
            ("publish", [START, SET_UP, TrainerEvent.STEPS_DONE]),
            ("teardown", WHOLE_RUN[:4]),
        ],
    )
    def test_wherever_it_raises(self, function: str, events: list[TrainerEvent]) -> None:
        is_broken = False
        trainer = failing()
        works = getattr(trainer, function)

        def raises(state: Any) -> Any:
            if is_broken:
                raise OSError(f"{function} broke")
            return works(state)

        bench = bench_of(trainer._replace(**{function: raises}), pj.keep_acting(backoff_seconds=0.0))
        bench.tick()
        bench.events.clear()
        is_broken = True
        assert str(bench.tick().error) == f"{function} broke"
        assert [event for _, event in bench.events] == [*events, ROLL_BACK]
        assert int(bench.run().state.step) == 1
        is_broken = False
        assert bench.tick().error is None
        assert int(bench.run().state.step) == 2

    def test_the_condition_counts_as_if_the_run_had_not_been(self) -> None:
        policy = pj.keep_acting(backoff_seconds=1.0)
        bench = bench_of(failing(2), policy, records=4, when=pj.min_new(4))
        bench.tick()
        before = bench.run()
        bench.feed(4)
        assert bench.tick().error is not None
        assert (bench.run().last, bench.run().after) == (before.last, before.after)
        assert (bench.run().runs, bench.run().finished, bench.run().steps) == (2, 1, 1)
        bench.clock.advance(1.0)
        assert bench.tick().version == 2  # no new record was needed
        assert bench.tick().trainer is None
        assert bench.run().reason == "0 of 4 new records"

    def test_batches_that_were_fetched_for_the_failed_run_are_dropped(self) -> None:
        buffers = {"x": pj.ring_buffer(4, placement="host", example=0.0)}
        policy = pj.keep_acting(backoff_seconds=0.0)

        def step(state: Any, batch: Any) -> Any:
            return state.replace(step=state.step + 1), {"bad": jnp.float32(1), "largest": jnp.max(batch)}

        trainer = nan_trainer(10**6)._replace(step=step)
        bench = Bench(
            fed_system(schedule(trainer, steps=3, steps_per_chunk=1, when=pj.min_size(2)), buffers=buffers),
            faults=policy,
        )
        bench.feed(2)
        bench.tick()
        assert bench.run().prefetched is not None
        chunk = bench.programs.trainers["fit"].chunk
        bench.programs = broken(bench.programs, "chunk", chunk)
        assert str(bench.tick().error) == "chunk broke"
        assert (bench.run().prefetched, bench.run().chunk) == (None, 0)
        bench.programs = broken(bench.programs, "chunk", None, chunk)
        assert [bench.tick().version for _ in range(3)] == [None, None, 1]
        assert int(bench.run().state.step) == 3

    def test_it_is_kept_by_reference_and_nothing_of_it_is_donated(self) -> None:
        bench = bench_of(nan_trainer(3), pj.keep_acting(backoff_seconds=0.0), steps=1)
        assert not any(row.donated for row in bench.programs.trainers["fit"].plan.rows)
        for _ in range(2):
            bench.tick()
        good = bench.run().state
        assert isinstance(bench.tick().error, NonFiniteError)
        assert bench.run().state is good
        np.testing.assert_array_equal(good.params["policy"], np.full(3, 2.0))
        assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(good))

    @pytest.mark.parametrize("policy", [pj.fail_fast(), pj.keep_acting(restarts=0)])
    def test_where_nobody_goes_back_nothing_is_kept(self, policy: pj.FaultPolicy) -> None:
        bench = bench_of(counting(), policy)
        bench.tick()
        assert bench.run().faults.good is None
        assert any(row.donated for row in bench.programs.trainers["fit"].plan.rows)

    def test_a_step_that_would_delete_it_works_on_a_copy(self) -> None:
        add_one = jax.jit(lambda step: step + 1, donate_argnums=0)

        def step(state: Any, batch: Any) -> Any:
            state = state.replace(step=add_one(state.step))
            raise ValueError("and then it failed")

        bench = bench_of(failing()._replace(step=step), pj.keep_acting())
        report = bench.tick()
        assert str(report.error) == "and then it failed"
        assert bench.run().phase is TrainerPhase.WAITING
        assert int(bench.run().state.step) == 0


def broken(programs: Any, name: str, *functions: Any) -> Any:
    """Return programs in which a function of the trainer raises; or with a last one in its place."""

    def raises(*arguments: Any) -> Any:
        raise OSError(f"{name} broke")

    trainer = programs.trainers["fit"]._replace(**{name: functions[1] if len(functions) > 1 else raises})
    return programs._replace(trainers={"fit": trainer})


class TestQuarantine:
    def test_what_is_not_finite_is_published_never_and_others_go_on_bit_for_bit(self) -> None:
        trainers = {"a": nan_trainer(3, model="a"), "b": counting("b")}
        bench = Bench(several(trainers), faults=pj.keep_acting(restarts=2, backoff_seconds=0.0))
        alone = Bench(several({"b": trainers["b"]}))
        for one in (bench, alone):
            one.feed(2)
        errors: list[Any] = []
        while bench.run("b").finished < 8:
            errors.append(bench.tick().error)
            assert np.all(np.isfinite(bench.cells.store.latest.params["a"]))
        for _ in range(8):
            alone.tick()
        assert [type(error) for error in errors if error] == [NonFiniteError] * 3
        assert [event for name, event in bench.events if name == "a" and event in (ROLL_BACK, FAIL)] == [
            ROLL_BACK,
            ROLL_BACK,
            FAIL,
        ]
        assert bench.run("a").phase is TrainerPhase.FAILED
        assert bench.run("a").reason.startswith("quarantined after 2 restarts: NonFiniteError: not finite, so not")
        np.testing.assert_array_equal(bench.run("a").state.params["a"], np.full(3, 2.0))  # the last good one
        np.testing.assert_array_equal(bench.cells.store.latest.params["a"], np.full(3, 2.0))
        assert_equal_trees(bench.run("b").state, alone.run("b").state)
        assert_equal_trees(bench.cells.store.latest.params["b"], alone.cells.store.latest.params["b"])

    def test_what_others_take_over_is_checked_too(self) -> None:
        def loss_fn(params: Any, batch: Any, rng_key: jax.Array) -> Any:
            return jnp.mean((params["b"] - params["hidden"]) ** 2), {}

        reading = pj.gradient_trainer(loss_fn, optax.sgd(0.1), trains=("b",), reads=("hidden",))
        trainers = {"a": nan_trainer(2, model="hidden"), "b": reading}
        system = fed_system(
            models={"hidden": pj.Model(jnp.zeros(3), infer=False), "b": pj.Model(jnp.zeros(3))},
            trainers={name: schedule(trainer) for name, trainer in trainers.items()},
        )
        bench = Bench(system)
        bench.feed(2)
        errors = [bench.tick().error for _ in range(4)]
        assert [type(error) for error in errors if error] == [NonFiniteError]
        np.testing.assert_array_equal(bench.learner.models["hidden"], np.ones(3))

    def test_whoever_waits_for_it_says_so(self) -> None:
        trainers = {"a": python_trainer(raise_fish, model="a"), "b": counting("b"), "c": counting("c")}
        system = several(trainers)
        schedules = {
            "a": schedule(trainers["a"], group="both"),
            "b": schedule(trainers["b"], group="both"),
            "c": schedule(trainers["c"], after=("a",)),
        }
        bench = Bench(fed_system(models=system.models, trainers=schedules), faults=pj.keep_acting(restarts=0))
        bench.feed(2)
        for _ in range(4):
            bench.tick()
        assert bench.run("c").reason == "waits for a run of 'a', which has failed"
        assert bench.run("b").finished > 0
        note = "; group 'both' publishes no more, since 'a' failed"
        assert bench.run("b").reason == f"its run has just ended{note}"
        bench.learner = bench.learner.with_buffer("x", bench.learner.buffers["x"]._replace(inserted=0, size=0))
        bench.tick()
        assert bench.run("b").reason == f"has 0 of the 2 records that a batch is drawn from{note}"
        assert bench.cells.store.latest.version == 0


def raise_fish(number: int) -> None:
    raise ValueError("the loss is a fish")


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"restarts": -1}, r"keep_acting\(restarts\) is -1, expected an integer from 0"),
            ({"restarts": 1.5}, r"keep_acting\(restarts\) is 1\.5, expected an integer"),
            ({"backoff_seconds": -1.0}, r"keep_acting\(backoff_seconds\) is -1\.0, expected a number from 0"),
            ({"backoff_factor": 0.5}, r"keep_acting\(backoff_factor\) is 0\.5, expected a number from 1"),
            ({"max_backoff_seconds": 0.5}, r"keep_acting\(max_backoff_seconds\) is 0\.5, expected a number from 1\.0"),
            ({"repair": 0.5}, r"keep_acting\(repair\) is 0\.5, expected \(state\) -> state.*; halve the learning rate"),
            ({"repair": {"fit": 0.5}}, r"keep_acting\(repair\) is \{'fit': 0\.5\}, expected"),
            ({"bad_updates": 0}, r"keep_acting\(bad_updates\) is 0, expected an integer from 1"),
        ],
    )
    def test_out_of_range(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidValueError, match=message):
            pj.keep_acting(**arguments)

    def test_fail_fast(self) -> None:
        with pytest.raises(InvalidValueError, match=r"fail_fast\(bad_updates\) is 0, expected an integer from 1"):
            pj.fail_fast(bad_updates=0)


def test_lockstep_logs_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    system = learning_system(trainers={"fit": pj.Schedule(failing(2, 3), data="seen", batch_size=1)})
    policy = pj.keep_acting(restarts=1, backoff_seconds=0.0)
    with caplog.at_level(logging.WARNING, "pamiq_jax"):
        result = pj.run_lockstep(system, 6, faults=policy)
    assert (result.actor.tick, result.snapshot.version, len(result.metrics)) == (6, 1, 1)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "trainer 'fit' has failed and restarts in 0.0 s after 1 failure: ValueError: call 2"),
        (
            "ERROR",
            "trainer 'fit' is quarantined after 1 restart: ValueError: call 3; the agent and the other trainers go on",
        ),
    ]
    assert all(record.exc_info and isinstance(record.exc_info[1], ValueError) for record in caplog.records)
