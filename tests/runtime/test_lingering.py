"""A chunk that is still computed when its tick returns: nothing changes but when the host waits."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pamiq_jax as pj
from pamiq_jax.errors import WorkerError
from pamiq_jax.lifecycle import TrainerPhase
from pamiq_jax.runtime.lingering import MOST_SECONDS, Lingering
from pamiq_jax.runtime.state import TrainReport
from pamiq_jax.types import Metrics
from tests.runtime.fakes import PATIENCE, fed_system

CHUNKS = 4


def loss_fn(params: Any, batch: Any, rng_key: jax.Array) -> Any:
    loss = jnp.mean((params["policy"] - jnp.mean(batch) + jax.random.normal(rng_key)) ** 2)
    return loss, {}


class Poisoned:
    """What a device that has failed leaves of a result."""

    def block_until_ready(self) -> None:
        raise RuntimeError("the device has failed")


def calling() -> pj.Trainer[Any, Any]:
    """Return a compiled trainer whose step calls Python, which raises at step 3."""

    def check(step: Any) -> np.ndarray[Any, Any]:
        if step == 3:
            raise ValueError("the computation has failed")
        return np.zeros((), np.float32)

    def init(rng_key: jax.Array, params: Any) -> pj.TrainerState[Any]:
        return pj.TrainerState(params, (), jnp.zeros((), jnp.int32), rng_key)

    def step(state: pj.TrainerState[Any], batch: Any) -> Any:
        zero = jax.pure_callback(check, jax.ShapeDtypeStruct((), jnp.float32), state.step)
        return state.replace(step=state.step + 1), {"loss": zero}

    return pj.custom_trainer(init, step)


GRADIENT = pj.gradient_trainer(loss_fn, optax.adam(0.1))


def schedule(trainer: pj.Trainer[Any, Any], **changes: Any) -> pj.Schedule:
    parts = {"data": "x", "batch_size": 2, "steps": 2 * CHUNKS, "steps_per_chunk": 2, "when": pj.min_size(2), **changes}
    return pj.Schedule(trainer, **parts)


class Bench:
    """A system's training side, stepped by hand, with or without waiting for each chunk's end."""

    def __init__(self, system: pj.System, *, lingers: bool, **options: Any) -> None:
        compiled = pj.compile_system(system, **options)
        self.programs, self.learner, self.cells = compiled.programs, compiled.learner, compiled.cells()
        self.clock, self._lingers = pj.VirtualClock(), lingers
        self.lingered: list[tuple[str, Metrics]] = []
        for value in range(8):
            self.cells.collectors["x"].collect(float(value), version=0)

    def fail(self, name: str, at: int, times: int = CHUNKS) -> None:
        """Have the device fail in some of a trainer's chunks, from number `at` on."""
        programs, done = self.programs.trainers[name], itertools.count()

        def chunk(*arguments: Any) -> Any:
            state, metrics = programs.chunk(*arguments)
            is_failing = at <= next(done) < at + times
            return state, dict.fromkeys(metrics, Poisoned()) if is_failing else metrics

        trainers = {**self.programs.trainers, name: programs._replace(chunk=chunk)}
        self.programs = self.programs._replace(trainers=trainers)

    def tick(self) -> TrainReport:
        linger = (lambda *chunk: self.lingered.append(chunk)) if self._lingers else None
        self.learner, report = pj.train_tick(self.programs, self.learner, self.cells, self.clock, linger=linger)
        return report


@pytest.mark.parametrize("donates", [True, False])
def test_results_are_the_same_bit_for_bit(donates: bool) -> None:
    ends: list[Any] = []
    for lingers in (False, True):
        bench = Bench(fed_system(schedule(GRADIENT)), lingers=lingers, donates=donates, check_donation=donates)
        reports = [bench.tick() for _ in range(3 * CHUNKS - 1)]
        run = bench.learner.trainers["fit"]
        ends.append(jax.device_get(([report.metrics for report in reports], run.state.params, run.steps, run.runs)))
        assert bench.cells.store.latest.version == 2
    jax.tree.map(np.testing.assert_array_equal, *ends)


def test_only_the_last_chunk_of_a_run_is_waited_for_in_its_own_tick() -> None:
    bench = Bench(fed_system(schedule(GRADIENT)), lingers=True)
    for done in range(1, CHUNKS):
        report = bench.tick()
        assert [name for name, _ in bench.lingered] == ["fit"] * done
        assert bench.learner.under_way == ("fit", report.metrics)
    assert bench.tick().version == 1
    assert len(bench.lingered) == CHUNKS - 1
    assert bench.learner.under_way is None


def test_a_chunk_that_fails_is_the_next_one_s_tick_to_find_and_the_one_after_s_to_tell() -> None:
    bench = Bench(fed_system(schedule(GRADIENT)), lingers=True)
    bench.fail("fit", at=1)
    reports = [bench.tick() for _ in range(4)]
    assert [report.error is None for report in reports] == [True, True, True, False]
    assert "the device has failed" in str(reports[3].error)
    run = bench.learner.trainers["fit"]
    assert (run.phase, bench.learner.failed, bench.learner.under_way) == (TrainerPhase.FAILED, None, None)
    assert bench.cells.store.latest.version == 0
    assert bench.tick().trainer is None


def test_the_other_trainer_goes_on_when_one_has_failed_under_way() -> None:
    trainers = {name: schedule(pj.gradient_trainer(_loss_of(name), optax.adam(0.1), trains=(name,))) for name in "ab"}
    bench = Bench(fed_system(models={name: pj.Model(jnp.zeros(3)) for name in "ab"}, trainers=trainers), lingers=True)
    bench.fail("a", at=0)
    reports = [bench.tick() for _ in range(2 * CHUNKS)]
    assert [report.trainer for report in reports if report.error is not None] == ["a"]
    assert bench.learner.trainers["a"].phase is TrainerPhase.FAILED
    assert bench.learner.trainers["b"].finished == 1


def _loss_of(model: str) -> Any:
    return lambda params, batch, rng_key: (jnp.mean((params[model] - jnp.mean(batch)) ** 2), {})


def test_one_whose_last_chunk_fails_too_fails_once() -> None:
    bench = Bench(fed_system(schedule(GRADIENT)), lingers=True)
    bench.fail("fit", at=CHUNKS - 2)
    errors = [report.error for report in (bench.tick() for _ in range(CHUNKS + 2)) if report.error is not None]
    assert len(errors) == 1
    assert bench.learner.failed is None
    assert bench.cells.store.latest.version == 0


def test_one_that_may_begin_anew_does() -> None:
    faults = pj.keep_acting(restarts=1, backoff_seconds=0.0)
    bench = Bench(fed_system(schedule(GRADIENT)), lingers=True, faults=faults)
    bench.fail("fit", at=0, times=2)
    phases = [bench.learner.trainers[report.trainer or "fit"].phase for report in (bench.tick() for _ in range(3))]
    assert phases == [TrainerPhase.TRAINING, TrainerPhase.TRAINING, TrainerPhase.WAITING]
    assert bench.learner.trainers["fit"].faults.rollbacks == 1
    assert [bench.tick().version for _ in range(CHUNKS)] == [None] * (CHUNKS - 1) + [1]


def test_a_chunk_that_calls_python_is_waited_for(tmp_path: Path) -> None:
    bench = Bench(fed_system(schedule(calling())), lingers=True)
    bench.tick()
    assert bench.learner.under_way is None
    assert "the computation has failed" in str(bench.tick().error)


def test_what_fails_on_the_device_surfaces_live_and_the_metrics_stay_readable() -> None:
    rows: list[Any] = []
    with pj.launch(fed_system(schedule(calling())), on_metrics=rows.append) as run:
        for value in range(4):
            run.collect("x", float(value))
        with pytest.raises(WorkerError, match="trainer fit"):
            run.wait(PATIENCE)
        assert "the computation has failed" in str(run.status.errors)
        assert run.status.trainers["fit"].phase is TrainerPhase.FAILED
    assert [row.metrics for row in rows] == [{"loss": 0.0}]


def test_a_pause_is_acknowledged_only_when_nothing_is_computed_any_more() -> None:
    with pj.launch(fed_system(schedule(GRADIENT, steps=10**6))) as run:
        for value in range(4):
            run.collect("x", float(value))
        while run.status.trainers["fit"].steps < 20:
            run.wait(0.01)
        for _ in range(5):
            run.pause()
            under_way = run.learner.under_way
            assert under_way is not None
            assert all(leaf.is_ready() for leaf in jax.tree.leaves(under_way.metrics))
            run.resume()


class Scripted:
    """A clock that moves by what is dozed, and by a chunk's end that comes after it."""

    def __init__(self) -> None:
        self.seconds, self.dozed = 0.0, list[float]()

    def now(self) -> float:
        return self.seconds

    def doze(self, seconds: float) -> None:
        self.dozed.append(seconds)


class Unready:
    """An array that is not computed yet, until it is waited for."""

    def is_ready(self) -> bool:
        return False

    def block_until_ready(self) -> Unready:
        return self


def lingered(chunk_seconds: list[float], *, metrics: Any) -> list[float]:
    """Return how long was dozed within chunks of these lengths; that of the first is known."""
    clock = Scripted()
    lingering = Lingering(clock.doze, clock.now)
    lingering._seconds["t"] = chunk_seconds[0]
    for seconds in chunk_seconds:
        lingering("t", {"loss": metrics})
        clock.seconds += seconds
    return clock.dozed


def test_it_dozes_less_than_a_chunk_lasts() -> None:
    dozed = lingered([0.010] * 50, metrics=Unready())
    assert dozed[-1] == pytest.approx(0.008, rel=0.05)


def test_one_slow_chunk_changes_little_and_faster_ones_soon() -> None:
    assert lingered([0.010] * 40 + [0.030] * 2, metrics=Unready())[-1] < 0.0115
    assert lingered([0.010] * 40 + [0.005] * 6, metrics=Unready())[-1] < 0.0050


def test_who_was_late_dozes_less_each_time() -> None:
    dozed = lingered([0.010] * 10, metrics=jnp.zeros(()))
    assert all(later < earlier for earlier, later in itertools.pairwise(dozed))


def test_long_chunks_are_waited_for_to_their_end() -> None:
    class Long(Unready):
        def block_until_ready(self) -> Unready:
            clock.seconds += 2 * MOST_SECONDS
            return self

    clock = Scripted()
    lingering = Lingering(clock.doze, clock.now)
    for _ in range(10):
        lingering("t", {"loss": Long()})
    assert clock.dozed == []
