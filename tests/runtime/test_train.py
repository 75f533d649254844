from __future__ import annotations

import gc
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pamiq_jax as pj
from pamiq_jax.errors import NonFiniteError
from pamiq_jax.lifecycle import TRAINER_TRANSITIONS, TrainerEvent, TrainerPhase
from tests.runtime.fakes import fed_system, nan_trainer, python_trainer

START, SET_UP, CHUNK_DONE = TrainerEvent.START, TrainerEvent.SET_UP, TrainerEvent.CHUNK_DONE
STEPS_DONE, PUBLISHED, TORN_DOWN = TrainerEvent.STEPS_DONE, TrainerEvent.PUBLISHED, TrainerEvent.TORN_DOWN
WHOLE_RUN = [START, SET_UP, STEPS_DONE, PUBLISHED, TORN_DOWN]


class Bench:
    """A system's training side, stepped by hand."""

    def __init__(self, system: pj.System, **options: Any) -> None:
        compiled = pj.compile_system(system, **options)
        self.programs, self.learner, self.cells = compiled.programs, compiled.learner, compiled.cells()
        self.clock = pj.VirtualClock()
        self.events: list[tuple[str, TrainerEvent]] = []

    def feed(self, count: int) -> None:
        for value in range(count):
            self.cells.collectors["x"].collect(float(value), version=0)

    def tick(self) -> Any:
        self.learner, report = pj.train_tick(self.programs, self.learner, self.cells, self.clock, self._observe)
        return report

    def _observe(self, trainer: str, before: TrainerPhase, event: TrainerEvent, after: TrainerPhase) -> None:
        assert TRAINER_TRANSITIONS[before, event] is after
        self.events.append((trainer, event))

    def run(self, trainer: str = "fit") -> Any:
        return self.learner.trainers[trainer]


def counting(model: str = "policy") -> pj.Trainer[Any, Any]:
    """Return a trainer that adds 1 to its model at each step."""
    return nan_trainer(10**6, model=model)


def schedule(trainer: pj.Trainer[Any, Any] | None = None, **changes: Any) -> pj.Schedule:
    parts = {"trainer": counting() if trainer is None else trainer, "data": "x", "batch_size": 2, **changes}
    return pj.Schedule(**parts)


def several(trainers: dict[str, pj.Trainer[Any, Any]], **changes: Any) -> pj.System:
    models = {name: pj.Model(jnp.zeros(3)) for name in trainers}
    return fed_system(
        models=models, trainers={name: schedule(trainer, **changes) for name, trainer in trainers.items()}
    )


class TestRun:
    def test_phases_of_a_run_of_three_chunks(self) -> None:
        bench = Bench(fed_system(schedule(steps=6, steps_per_chunk=2)))
        bench.feed(3)
        told = []
        for _ in range(3):
            report = bench.tick()
            told.append((report.trainer, report.version, [event for _, event in bench.events]))
            bench.events.clear()
        assert told == [
            ("fit", None, [START, SET_UP, CHUNK_DONE]),
            ("fit", None, [CHUNK_DONE]),
            ("fit", 1, [STEPS_DONE, PUBLISHED, TORN_DOWN]),
        ]
        assert (bench.run().steps, bench.run().finished, bench.run().runs) == (6, 1, 1)
        np.testing.assert_array_equal(bench.cells.store.latest.params["policy"], np.full(3, 6.0))
        assert bench.cells.store.latest.step == 6

    def test_a_run_of_several_chunks_keeps_the_parameters_twice_and_no_third_time(self) -> None:
        bench = Bench(fed_system(schedule(steps=6, steps_per_chunk=2), models={"policy": pj.Model(np.zeros(4321))}))
        bench.feed(3)
        for _ in range(5):  # within the second run
            bench.tick()
            gc.collect()  # of tracing, some is left that refers to itself
            assert sum(array.shape == (4321,) and not array.is_deleted() for array in jax.live_arrays()) <= 2

    def test_setup_and_teardown_once_a_run(self) -> None:
        trainer = counting()._replace(
            setup=lambda state: state.replace(params=jax.tree.map(lambda leaf: leaf + 100, state.params)),
            teardown=lambda state: state.replace(params=jax.tree.map(lambda leaf: leaf + 1000, state.params)),
        )
        bench = Bench(fed_system(schedule(trainer, steps=4, steps_per_chunk=2)))
        bench.feed(2)
        for _ in range(4):
            bench.tick()
        # Published before teardown: (100 + 4) + 1000 + (100 + 4).
        np.testing.assert_array_equal(bench.cells.store.latest.params["policy"], np.full(3, 1208.0))

    @pytest.mark.parametrize("compiled", [True, False])
    @pytest.mark.parametrize("placement", ["device", "host"])
    def test_every_run_has_a_key_of_its_own_folded_from_the_trainer_s(self, placement: Any, *, compiled: bool) -> None:
        def init(rng_key: jax.Array, params: Any) -> pj.TrainerState[Any]:
            return pj.TrainerState(params, (), jnp.zeros((), jnp.int32), rng_key)

        def step(state: pj.TrainerState[Any], batch: Any) -> Any:
            return state, {"mean": batch.mean()}

        buffers = {"x": pj.ring_buffer(1000, example=0.0, placement=placement)}
        trainer = pj.custom_trainer(init, step, compiled=compiled)
        bench = Bench(fed_system(schedule(trainer, batch_size=16), buffers=buffers))
        bench.feed(1000)
        means = [float(bench.tick().metrics["mean"]) for _ in range(3)]
        run, buffer = bench.run(), bench.learner.buffers["x"].state
        sample = bench.programs.system.buffers["x"].sample
        keys = [jax.random.fold_in(run.data_key, number) for number in range(3)]
        assert means == [float(sample(buffer, 16, 0, key).data.mean()) for key in keys]
        assert len(set(means)) == 3

    def test_metrics_are_the_mean_of_the_chunk(self) -> None:
        bench = Bench(fed_system(schedule(python_trainer(lambda number: None), steps=4, steps_per_chunk=4)))
        bench.feed(2)
        assert float(bench.tick().metrics["number"]) == 2.5


class TestDecisions:
    def test_the_cursor_moves_only_when_a_run_starts(self) -> None:
        bench = Bench(fed_system(schedule(when=pj.min_new(5), steps=2, steps_per_chunk=1)))
        bench.feed(4)
        for _ in range(3):
            assert bench.tick().trainer is None
            assert bench.run().last == {"": pj.Progress()}
        bench.feed(1)
        bench.tick()
        assert bench.run().last[""].inserted == 5
        bench.feed(9)
        bench.tick()  # the second chunk of the run under way
        assert (bench.run().last[""].inserted, bench.run().phase) == (5, TrainerPhase.WAITING)
        bench.tick()
        assert bench.run().last[""].inserted == 14

    def test_a_veto_costs_nothing(self) -> None:
        is_open = False
        gate = pj.when(lambda now, last: is_open, description="the gate is open")
        bench = Bench(fed_system(schedule(when=pj.min_new(3) & gate)))
        bench.feed(3)
        for _ in range(5):
            assert bench.tick().trainer is None
        is_open = True
        assert bench.tick().trainer == "fit"

    def test_reason_and_hint_say_what_is_missing(self) -> None:
        bench = Bench(fed_system(schedule(when=pj.min_size(10))))
        bench.feed(3)
        report = bench.tick()
        assert bench.run().reason == "has 3 of 10 records"
        assert report.wake == pj.Wake(records=7)

    def test_hint_of_a_time(self) -> None:
        bench = Bench(fed_system(schedule(when=pj.every_seconds(2))))
        bench.feed(2)
        bench.clock.advance(2)
        assert bench.tick().trainer == "fit"
        bench.clock.advance(0.5)
        assert bench.tick().wake == pj.Wake(milliseconds=1500)
        bench.clock.advance(1.5)
        assert bench.tick().trainer == "fit"

    def test_hint_is_the_earliest_of_all_that_wait(self) -> None:
        conditions = {"a": pj.min_size(10), "b": pj.min_size(6), "c": pj.every_seconds(9)}
        system = fed_system(
            models={name: pj.Model(jnp.zeros(3)) for name in conditions},
            trainers={name: schedule(counting(name), when=when) for name, when in conditions.items()},
        )
        bench = Bench(system)
        bench.feed(2)
        while bench.tick().trainer is not None:
            bench.feed(0)
        assert bench.tick().wake == pj.Wake(records=4, milliseconds=9000)

    def test_a_batch_that_cannot_be_drawn_is_waited_for(self) -> None:
        buffers = {"x": pj.ring_buffer(100, sampling="epochs", example=0.0)}
        bench = Bench(fed_system(schedule(batch_size=8), buffers=buffers))
        bench.feed(5)
        assert bench.tick().wake == pj.Wake(records=3)
        assert bench.run().reason == "has 5 of the 8 records that a batch is drawn from"

    def test_three_trainers_take_turns(self) -> None:
        orders = []
        for _ in range(2):
            bench = Bench(several({name: counting(name) for name in "abc"}, steps=2, steps_per_chunk=1))
            bench.feed(2)
            orders.append("".join(bench.tick().trainer for _ in range(12)))
        assert orders == ["abcabcabcabc", "abcabcabcabc"]

    def test_only_those_that_may_run_take_turns(self) -> None:
        system = several({name: counting(name) for name in "abc"})
        waiting = {**system.trainers, "b": schedule(counting("b"), when=pj.min_size(50))}
        bench = Bench(fed_system(models=system.models, trainers=waiting))
        bench.feed(2)
        assert [bench.tick().trainer for _ in range(4)] == ["a", "c", "a", "c"]


class TestDraining:
    @pytest.mark.parametrize(("sampling", "expected"), [("uniform", [2, 5, 8]), ("epochs", [2, 2, 2])])
    def test_within_a_run(self, sampling: Any, expected: list[int]) -> None:
        buffers = {"x": pj.ring_buffer(100, sampling=sampling, example=0.0)}
        bench = Bench(fed_system(schedule(steps=3, steps_per_chunk=1, when=pj.min_new(2)), buffers=buffers))
        bench.feed(2)
        sizes = []
        for _ in range(3):
            bench.tick()
            sizes.append(bench.learner.buffers["x"].inserted)
            bench.feed(3)
        assert sizes == expected
        bench.tick()
        assert bench.learner.buffers["x"].inserted == 11  # between two runs everything is moved

    def test_only_the_buffer_of_the_run_is_held(self) -> None:
        buffers = {
            "x": pj.ring_buffer(100, sampling="in_order", example=0.0),
            "other": pj.ring_buffer(100, sampling="in_order", example=0.0),
        }
        bench = Bench(fed_system(schedule(steps=3, steps_per_chunk=1), buffers=buffers))
        bench.feed(2)
        bench.tick()
        bench.feed(2)
        bench.cells.collectors["other"].collect(1.0, version=0)
        bench.tick()
        assert {name: run.inserted for name, run in bench.learner.buffers.items()} == {"x": 2, "other": 1}


class TestFailures:
    def test_others_go_on(self) -> None:
        def fail(number: int) -> None:
            raise ValueError(f"step {number} is broken")

        bench = Bench(several({"a": python_trainer(fail, model="a"), "b": counting("b")}))
        bench.feed(2)
        report = bench.tick()
        assert (report.trainer, str(report.error), report.version) == ("a", "step 1 is broken", None)
        assert [event for _, event in bench.events] == [START, SET_UP, TrainerEvent.FAIL]
        assert bench.run("a").phase is TrainerPhase.FAILED
        assert bench.run("a").reason == "failed: ValueError: step 1 is broken"
        assert [bench.tick().trainer for _ in range(3)] == ["b", "b", "b"]

    @pytest.mark.parametrize(
        ("function", "events"),
        [
            ("setup", [START, TrainerEvent.FAIL]),
            ("publish", [START, SET_UP, STEPS_DONE, TrainerEvent.FAIL]),
            ("teardown", [*WHOLE_RUN[:4], TrainerEvent.FAIL]),
        ],
    )
    def test_wherever_it_raises(self, function: str, events: list[TrainerEvent]) -> None:
        is_broken = False
        trainer = python_trainer(lambda number: None)
        works = getattr(trainer, function)

        def raises(state: Any) -> Any:
            if is_broken:
                raise OSError(f"{function} broke")
            return works(state)

        bench = Bench(fed_system(schedule(trainer._replace(**{function: raises}))))
        is_broken = True
        bench.feed(2)
        assert str(bench.tick().error) == f"{function} broke"
        assert [event for _, event in bench.events] == events
        assert bench.tick() == pj.runtime.TrainReport()  # nobody is left, and nothing to wait for

    def test_what_is_not_finite_is_not_published(self) -> None:
        bench = Bench(several({"a": nan_trainer(3, model="a"), "b": counting("b")}))
        bench.feed(2)
        assert [bench.tick().version for _ in range(4)] == [1, 2, 3, 4]
        report = bench.tick()
        assert isinstance(report.error, NonFiniteError)
        assert (report.version, bench.cells.store.latest.version) == (None, 4)
        np.testing.assert_array_equal(bench.cells.store.latest.params["a"], np.full(3, 2.0))
        assert bench.run("a").phase is TrainerPhase.FAILED
        assert bench.run("a").reason.startswith("failed: NonFiniteError: not finite, so not published: ['a']")
        assert bench.tick().version == 5

    def test_a_step_that_donates_what_is_published_works_on_a_copy(self) -> None:
        add_one = jax.jit(lambda params: jax.tree.map(lambda leaf: leaf + 1, params), donate_argnums=0)

        def step(state: Any, batch: Any) -> Any:
            return state.replace(params=add_one(state.params)), {}

        bench = Bench(fed_system(schedule(python_trainer(lambda number: None)._replace(step=step))))
        bench.feed(2)
        snapshots = [bench.cells.store.latest]
        for _ in range(3):
            assert bench.tick().error is None
            snapshots.append(bench.cells.store.latest)
        assert [float(snapshot.params["policy"][0]) for snapshot in snapshots] == [0, 1, 2, 3]

    def test_donation_check_passes_for_what_is_compiled_here(self) -> None:
        bench = Bench(fed_system(schedule(steps=4, steps_per_chunk=2)), check_donation=True)
        bench.feed(2)
        snapshots = [bench.cells.store.latest]
        for _ in range(6):
            assert bench.tick().error is None
            snapshots.append(bench.cells.store.latest)
        assert [float(snapshot.params["policy"][0]) for snapshot in snapshots] == [0, 0, 4, 4, 8, 8, 12]
