from __future__ import annotations

import threading
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import pamiq_jax as pj
from pamiq_jax.errors import InvalidValueError, WorkerError
from tests.runtime.fakes import (
    AGENT,
    World,
    assert_equal_trees,
    fed_system,
    learner,
    learning_system,
    python_trainer,
)


class TestDeterminism:
    @pytest.mark.parametrize("sampling", ["uniform", "epochs", "in_order"])
    def test_two_runs_are_equal_bit_for_bit(self, sampling: Any) -> None:
        buffers = {"seen": pj.ring_buffer(16, sampling=sampling)}  # it wraps around
        schedule = pj.Schedule(learner(noise=0.1), data="seen", batch_size=4, steps=4, steps_per_chunk=2)
        system = learning_system(buffers=buffers, trainers={"fit": schedule})
        first, second = (pj.run_lockstep(system, 50, seed=2) for _ in range(2))
        assert first.snapshot.version > 5
        assert_equal_trees(first._asdict(), second._asdict())

    def test_another_seed_differs(self) -> None:
        first, second = (pj.run_lockstep(learning_system(), 20, seed=seed) for seed in (0, 1))
        assert not jnp.array_equal(first.snapshot.params["policy"], second.snapshot.params["policy"])
        assert not jnp.array_equal(
            first.learner.buffers["seen"].state.records.data["action"],
            second.learner.buffers["seen"].state.records.data["action"],
        )

    def test_stepping_by_hand_is_the_same(self) -> None:
        system = learning_system()
        expected = pj.run_lockstep(system, 30, seed=1)
        compiled = pj.compile_system(system, seed=1)
        learner, actor, cells, clock = compiled.learner, compiled.actor, compiled.cells(), pj.VirtualClock()
        system.interaction.environment.reset(1)
        for _ in range(30):
            actor, _ = pj.infer_tick(compiled.programs, actor, cells, clock)
            learner, _ = pj.train_tick(compiled.programs, learner, cells, clock)
            clock.advance(0.001)
        assert_equal_trees((learner, actor, cells.store.latest), (expected.learner, expected.actor, expected.snapshot))

    def test_a_longer_run_begins_like_a_shorter_one(self) -> None:
        system = learning_system(buffers={"seen": pj.ring_buffer(1000)})
        short, long = (pj.run_lockstep(system, count) for count in (20, 35))
        assert_equal_trees(short.metrics, long.metrics[: len(short.metrics)])
        stored = [result.learner.buffers["seen"].state.records.data["action"][:20] for result in (short, long)]
        np.testing.assert_array_equal(*stored)


class TestRhythm:
    def test_no_thread_is_started(self) -> None:
        before = threading.active_count()
        counts: set[int] = set()
        pj.run_lockstep(learning_system(), 10, on_interaction=lambda report: counts.add(threading.active_count()))
        assert counts == {before}

    def test_training_ticks_after_each_interaction(self) -> None:
        schedule = pj.Schedule(python_trainer(lambda number: None), data="seen", batch_size=1)
        for train_ticks, versions in ((0, 0), (1, 8), (3, 24)):
            result = pj.run_lockstep(learning_system(trainers={"fit": schedule}), 8, train_ticks=train_ticks)
            assert result.snapshot.version == versions
            assert [name for name, _ in result.metrics] == ["fit"] * versions

    def test_the_clock_moves_by_the_interval(self) -> None:
        schedule = pj.Schedule(python_trainer(lambda number: None), data="seen", batch_size=1, when=pj.every_seconds(1))
        interaction = pj.Interaction(AGENT, World(), interval_seconds=0.25)
        result = pj.run_lockstep(learning_system(trainers={"fit": schedule}, interaction=interaction), 17)
        assert result.snapshot.version == 4
        assert result.snapshot.published_at == 4.0

    def test_records_that_find_no_room_are_counted(self) -> None:
        result = pj.run_lockstep(learning_system(queues={"seen": pj.Queue(capacity=5)}), 12, train_ticks=0)
        assert result.buffers["seen"].dropped == 7

    def test_the_environment_is_reset_not_closed(self) -> None:
        world = World()
        system = learning_system(world)
        pj.run_lockstep(system, 2)
        pj.run_lockstep(system, 2)
        assert (world.resets, world.closed.is_set()) == (2, False)


class TestErrors:
    def test_without_an_interaction_nothing_comes_and_the_clock_goes_on(self) -> None:
        schedule = pj.Schedule(python_trainer(lambda number: None), data="x", batch_size=1)
        result = pj.run_lockstep(fed_system(trainers={"fit": schedule}), 3)
        assert (result.actors, result.snapshot.version, result.buffers["x"].seen) == ({}, 0, 0)

    @pytest.mark.parametrize(
        ("counts", "name"), [((-1, 1), "interactions"), ((1, -1), "train_ticks"), ((1, 1.0), "tra")]
    )
    def test_counts_that_are_none(self, counts: tuple[int, int], name: str) -> None:
        with pytest.raises(InvalidValueError, match=rf"run_lockstep\({name}.* is -?1.*, expected an integer from 0"):
            pj.run_lockstep(learning_system(), counts[0], train_ticks=counts[1])

    def test_a_failing_trainer_is_raised_with_its_cause(self) -> None:
        def fail(number: int) -> None:
            if number == 3:
                raise ZeroDivisionError("third step")

        schedule = pj.Schedule(python_trainer(fail), data="seen", batch_size=1)
        with pytest.raises(WorkerError, match="worker 'trainer fit' failed: ZeroDivisionError: third step") as caught:
            pj.run_lockstep(learning_system(trainers={"fit": schedule}), 10)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    def test_a_failing_environment_is_raised_as_it_is(self) -> None:
        class Broken(World):
            def observe(self) -> np.ndarray:
                raise OSError("no camera")

        with pytest.raises(OSError, match="no camera"):
            pj.run_lockstep(learning_system(Broken()), 1)
