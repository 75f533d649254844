"""Pausing a launched system: at most one chunk later, and never while one runs."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import pamiq_jax as pj
from pamiq_jax.errors import InvalidTransitionError, PauseTimeoutError
from pamiq_jax.lifecycle import SystemPhase, TrainerPhase
from tests.runtime.fakes import (
    AGENT,
    PATIENCE,
    World,
    fed_system,
    learning_system,
    python_trainer,
    wait_for_phase,
)


class Steps:
    """Counts a trainer's steps on the training thread, two to a chunk, and notes any that should not be."""

    def __init__(self) -> None:
        self.count = 0
        self.is_in_chunk = False
        self.may_step = True
        self.violations: list[int] = []
        self.chunk_began = threading.Event()

    def __call__(self, number: int) -> None:
        self.is_in_chunk = True
        self.chunk_began.set()
        if not self.may_step:
            self.violations.append(number)
        self.count = number
        self.is_in_chunk = number % 2 == 1


def test_resume_then_pause_at_once_never_reports_paused_while_a_chunk_runs() -> None:
    steps = Steps()
    schedule = pj.Schedule(python_trainer(steps), data="x", batch_size=1, steps=2, steps_per_chunk=2)
    with pj.launch(fed_system(schedule)) as run:
        run.collect("x", 1.0)
        assert steps.chunk_began.wait(PATIENCE)
        run.pause()
        for repetition in range(200):
            before = steps.count
            assert not steps.is_in_chunk
            assert run.status.phase is SystemPhase.PAUSED
            steps.chunk_began.clear()
            steps.may_step = True
            run.resume()
            if repetition % 4 == 0:  # certainly under way
                assert steps.chunk_began.wait(PATIENCE)
            run.pause()
            steps.may_step = False
            assert not steps.is_in_chunk
            assert steps.count % 2 == 0
            assert steps.count >= before + (2 if repetition % 4 == 0 else 0)
    assert steps.violations == []


class TestWithinARun:
    def test_pause_takes_one_chunk_and_resume_goes_on_in_the_run(self) -> None:
        holds: list[Any] = []
        reached, setups = threading.Event(), []

        def on_step(number: int) -> None:
            if number == 7:  # in the second of four chunks
                reached.set()
                wait_for_phase(holds[0], SystemPhase.PAUSING)

        trainer = python_trainer(on_step)
        trainer = trainer._replace(setup=lambda state: setups.append(int(state.step)) or state)
        schedule = pj.Schedule(trainer, data="x", batch_size=1, steps=20, steps_per_chunk=5, when=pj.min_new(1))
        with pj.launch(fed_system(schedule)) as run:
            holds.append(run)
            run.collect("x", 1.0)
            assert reached.wait(PATIENCE)
            run.pause()
            status = run.status.trainers["fit"]
            assert (status.phase, status.steps, status.step_in_run) == (TrainerPhase.TRAINING, 10, 10)
            assert int(run.learner.trainers["fit"].state.step) == 10
            assert run.status.version == 0
            run.resume()
            assert run.wait_for_version(1, PATIENCE).step == 20
        assert setups == [0]
        assert run.status.trainers["fit"].runs == 1

    def test_a_chunk_that_takes_too_long_is_named(self) -> None:
        reached, go = threading.Event(), threading.Event()

        def on_step(number: int) -> None:
            reached.set()
            assert go.wait(PATIENCE)

        schedule = pj.Schedule(python_trainer(on_step), data="x", batch_size=1, when=pj.min_new(1))
        with pj.launch(fed_system(schedule)) as run:
            run.collect("x", 1.0)
            assert reached.wait(PATIENCE)
            with pytest.raises(PauseTimeoutError, match=r"pamiq-training did not acknowledge pause within 0\.01 s"):
                run.pause(timeout=0.01)
            assert run.status.phase is SystemPhase.PAUSING
            go.set()
            run.pause()
            assert (run.status.phase, run.status.version) == (SystemPhase.PAUSED, 1)

    def test_the_agent_is_not_held_by_a_long_chunk(self) -> None:
        reached, acted = threading.Event(), threading.Event()
        seen_after: list[int] = []

        def on_step(number: int) -> None:
            reached.set()
            assert acted.wait(PATIENCE)

        def on_interaction(report: Any) -> None:
            if reached.is_set():
                seen_after.append(report.version)
            if len(seen_after) == 50:
                acted.set()

        schedule = pj.Schedule(python_trainer(on_step), data="seen", batch_size=1)
        with pj.launch(learning_system(trainers={"fit": schedule}), on_interaction=on_interaction) as run:
            run.wait_for_version(1, PATIENCE)
        assert set(seen_after[:50]) == {0}


class TestHooks:
    def test_both_sides_hooks_return_before_it_counts(self) -> None:
        told: list[tuple[str, str, str]] = []
        runs: list[pj.Run] = []

        def note(what: str) -> Any:
            return lambda: told.append((threading.current_thread().name, what, str(runs[0].status.phase)))

        schedule = pj.Schedule(
            python_trainer(lambda number: None),
            data="seen",
            batch_size=1,
            on_paused=note("paused"),
            on_resumed=note("resumed"),
        )
        interaction = pj.Interaction(AGENT, World(), on_paused=note("paused"), on_resumed=note("resumed"))
        with pj.launch(learning_system(trainers={"fit": schedule}, interaction=interaction)) as run:
            runs.append(run)
            run.wait_for_version(1, PATIENCE)  # both are at work: what has not begun needs no hook
            run.pause()
            names = ("pamiq-inference", "pamiq-training")
            assert sorted(told) == [(name, "paused", "pausing") for name in names]
            told.clear()
            run.resume()
            assert sorted(told) == [(name, "resumed", "resuming") for name in names]


class TestStandingStill:
    def test_nothing_acts_and_no_time_passes(self) -> None:
        with pj.launch(learning_system()) as run:
            run.wait_for_version(2, PATIENCE)
            run.pause()
            first = run.status
            run.collect("seen", _record())
            second = run.status
            assert first.inference.ticks == second.inference.ticks > 0
            assert (first.seconds, first.version) == (second.seconds, second.version)
            run.resume()
            run.wait_for_version(second.version + 1, PATIENCE)

    def test_a_snapshot_stays_readable(self) -> None:
        with pj.launch(learning_system()) as run:
            snapshot = run.wait_for_version(1, PATIENCE)
            values = [float(value) for value in snapshot.params["policy"]]
            run.wait_for_version(5, PATIENCE)
            run.pause()
            assert [float(value) for value in snapshot.params["policy"]] == values

    def test_before_ready_it_waits_until_the_system_runs(self) -> None:
        with pj.launch(learning_system()) as run:
            run.pause()
            assert run.status.phase is SystemPhase.PAUSED

    def test_resume_without_a_pause_does_nothing(self) -> None:
        with pj.launch(fed_system()) as run:
            run.wait_until_ready()
            run.resume()
            assert run.status.phase is SystemPhase.RUNNING

    def test_after_the_end(self) -> None:
        with pj.launch(fed_system()) as run:
            run.wait_until_ready()
        with pytest.raises(InvalidTransitionError, match="pause is not possible in phase stopped"):
            run.pause()

    def test_stop_while_paused(self) -> None:
        world = World()
        with pj.launch(learning_system(world)) as run:
            run.pause()
            run.stop()
            assert run.status.phase is SystemPhase.STOPPED
        assert world.closed.is_set()


def _record() -> dict[str, Any]:
    zero = np.float32(0)
    return {
        "observation": np.zeros(3, np.float32),
        "action": zero,
        "reward": zero,
        "noise": zero,
        "carry": np.int32(0),
    }
