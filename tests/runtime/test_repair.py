"""Trainers that skip too many updates, and what a repair makes of their last good state."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pamiq_jax as pj
from pamiq_jax.errors import StepStructureError, TooManyBadUpdatesError, UnknownNameError, WorkerError
from pamiq_jax.lifecycle import TrainerPhase
from pamiq_jax.runtime.rollback import with_changed_good
from pamiq_jax.trainer import guard
from pamiq_jax.trainer.guarding import skip_reader
from tests.runtime.fakes import assert_equal_trees, fed_system, nan_trainer
from tests.runtime.test_rollback import bench_of, failing
from tests.runtime.test_train import Bench, schedule


def descending(rate: float = 0.5) -> pj.Trainer[Any, Any]:
    """Return a guarded trainer whose learning rate can be changed, and that draws its model to what it is shown."""

    def loss_fn(params: Any, batch: jax.Array, rng_key: jax.Array) -> Any:
        return jnp.mean((params["policy"] - jnp.mean(batch)) ** 2), {}

    return guard(pj.gradient_trainer(loss_fn, optax.inject_hyperparams(optax.sgd)(learning_rate=rate)))


def consecutive_skips(state: Any) -> int:
    read = skip_reader(state)
    assert read is not None
    return read(state)


def rate_of(state: Any) -> float:
    return pj.get_hyperparameters(state)["learning_rate"]


def halve(state: Any) -> Any:
    return pj.set_hyperparameters(state, learning_rate=rate_of(state) / 2)


def sensing(policy: pj.FaultPolicy, *, steps: int = 4) -> Bench:
    """Return a bench with a guarded trainer on a buffer of four records, all of which are drawn."""
    buffers = {"x": pj.ring_buffer(4, sampling="in_order", example=0.0)}
    system = fed_system(schedule(descending(), batch_size=4, steps=steps, steps_per_chunk=steps), buffers=buffers)
    return Bench(system, faults=policy)


def sense(bench: Bench, value: float) -> None:
    for _ in range(4):
        bench.cells.collectors["x"].collect(value, version=0)


class TestBadUpdates:
    def test_rolled_back_and_repaired_until_the_data_is_good(self) -> None:
        bench = sensing(pj.keep_acting(backoff_seconds=1.0, repair=halve, bad_updates=3))
        sense(bench, 1.0)
        assert bench.tick().version == 1
        good = bench.run().state
        sense(bench, np.nan)
        for rate in (0.25, 0.125):
            report = bench.tick()
            assert isinstance(report.error, TooManyBadUpdatesError)
            assert np.isnan(report.metrics["loss"])
            state = bench.run().state
            assert (rate_of(state), consecutive_skips(state)) == (rate, 0)
            assert_equal_trees(state.params, good.params)
            bench.clock.advance(2.0)
        assert bench.cells.store.latest.version == 1
        sense(bench, 1.0)
        assert bench.tick().version == 2
        assert rate_of(bench.run().state) == rate_of(bench.run().faults.good.state) == 0.125
        assert bench.run().faults.rollbacks == 2

    def test_runs_in_which_updates_are_skipped_are_not_good(self) -> None:
        bench = sensing(pj.keep_acting(backoff_seconds=0.0, bad_updates=3), steps=1)
        sense(bench, 1.0)
        bench.tick()
        sense(bench, np.nan)
        assert [bench.tick().version for _ in range(2)] == [2, 3]  # unchanged and finite, so published
        assert consecutive_skips(bench.run().state) == 2
        assert isinstance(bench.tick().error, TooManyBadUpdatesError)
        assert consecutive_skips(bench.run().state) == 0
        assert [bench.tick().error is None for _ in range(3)] == [True, True, False]
        assert bench.run().faults.restarts == 2  # those runs have not ended the row

    def test_fail_fast_says_how_many_and_what_to_do(self) -> None:
        bench = sensing(pj.fail_fast(bad_updates=4))
        sense(bench, np.nan)
        error = bench.tick().error
        assert isinstance(error, TooManyBadUpdatesError)
        assert str(error) == (
            "the guard of trainer 'fit' has skipped 4 updates in a row, expected fewer than 4; "
            "lower its learning rate, look at the data, or have it begin anew: launch(faults=pj.keep_acting())"
        )
        assert bench.run().phase is TrainerPhase.FAILED
        assert bench.run().reason.startswith("failed: TooManyBadUpdatesError: the guard of trainer 'fit'")

    @pytest.mark.parametrize("limit", [5, None])
    def test_below_the_limit_they_are_skipped(self, limit: int | None) -> None:
        bench = sensing(pj.fail_fast(bad_updates=limit))
        sense(bench, np.nan)
        assert (bench.tick().error, consecutive_skips(bench.run().state)) == (None, 4)


class TestRepair:
    @pytest.mark.parametrize(
        ("repair", "cause", "message"),
        [
            (lambda state: 1 / 0, ZeroDivisionError, "division by zero"),
            (
                lambda state: None,
                StepStructureError,
                "repair returned a state of another form: missing .*; return every",
            ),
            (
                lambda state: state.replace(step=np.zeros(2, np.int32)),
                StepStructureError,
                r"leaf \.step: expected int32\[\], got int32\[2\]",
            ),
        ],
    )
    def test_one_that_is_broken_is_contained(self, repair: Any, cause: type[Exception], message: str) -> None:
        bench = bench_of(failing(1), pj.keep_acting(repair=repair))
        error = bench.tick().error
        assert isinstance(error, WorkerError)
        assert error.worker == "repair of trainer 'fit'"
        assert isinstance(error.__cause__, cause)
        with pytest.raises(WorkerError, match=message):
            raise error
        assert str(error.__cause__.__context__) == "call 1"
        assert bench.run().phase is TrainerPhase.FAILED
        assert bench.run().reason.startswith(
            "quarantined after 0 restarts: WorkerError: worker \"repair of trainer 'fit'"
        )

    def test_what_it_returns_fits_what_was_compiled(self) -> None:
        def repair(state: Any) -> Any:  # numbers and numpy arrays in place of arrays
            return state.replace(params={"policy": np.full(3, 7.0, np.float32)}, step=0)

        bench = bench_of(nan_trainer(2), pj.keep_acting(backoff_seconds=0.0, repair={"fit": repair}))
        assert [bench.tick().version for _ in range(3)] == [1, None, 2]
        np.testing.assert_array_equal(bench.cells.store.latest.params["policy"], np.full(3, 8.0))

    def test_only_those_named_are_repaired(self) -> None:
        policy = pj.keep_acting(repair={"other": halve})
        assert (policy.repair_of("other"), policy.repair_of("fit")) == (halve, None)
        with pytest.raises(UnknownNameError, match=r"keep_acting\(repair\): no trainer is named 'other'; known: 'fit'"):
            pj.compile_system(fed_system(schedule()), faults=policy)
        with pytest.raises(UnknownNameError, match="no trainer is named 'other'"):
            pj.launch(fed_system(schedule()), faults=policy)

    def test_a_hyper_parameter_that_was_changed_meanwhile_stays_so(self) -> None:
        bench = bench_of(descending(), pj.keep_acting(), steps=2, steps_per_chunk=1)
        for rate in (0.25, 0.125):  # at the beginning, where both are one state, and within a run
            run = bench.run()
            state = pj.set_hyperparameters(run.state, learning_rate=rate)
            run = with_changed_good(run, state, {"learning_rate": rate})
            bench.learner = bench.learner.with_trainer("fit", run)
            bench.tick()
            assert rate_of(bench.run().faults.good.state) == rate_of(bench.run().state) == rate
