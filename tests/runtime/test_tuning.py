"""Chunks as long as a budget allows."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import pamiq_jax as pj
from pamiq_jax.checkpoint import StateStore, latest_n
from pamiq_jax.errors import InvalidValueError, StateMismatchError, WorkerError
from pamiq_jax.lifecycle import TrainerPhase
from pamiq_jax.runtime import tuning
from tests.runtime.fakes import PATIENCE, SavedWorld, fed_system, learner, learning_system, python_trainer
from tests.runtime.test_models import changing, scheduled


def system_of(**schedules: pj.Schedule) -> pj.System:
    return fed_system(models={name: pj.Model(jnp.zeros(3)) for name in schedules}, trainers=schedules)


def adding(model: str) -> pj.Trainer[Any, Any]:
    return changing(lambda w: w + 1, trains=(model,))


@pytest.fixture
def a_step_takes_1_ms(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """Have every step take a millisecond, and return the lengths that were timed."""
    timed: list[dict[str, int]] = []

    def seconds(system: pj.System, compile_it: Any, names: Any) -> dict[str, float]:
        timed.append({name: system.trainers[name].chunk for name in names})
        return {name: 1e-3 * system.trainers[name].chunk for name in names}

    monkeypatch.setattr(tuning, "_chunk_seconds", seconds)
    return timed


def test_the_largest_divisor_that_fits(a_step_takes_1_ms: list[dict[str, int]]) -> None:
    system = system_of(many=scheduled(adding("many"), steps=96), few=scheduled(adding("few"), steps=7))
    tuned = pj.tune_chunks(system, latency_budget_ms=50)
    assert {name: schedule.chunk for name, schedule in tuned.trainers.items()} == {"many": 48, "few": 7}
    assert tuned.trainers["many"].chunk_reason == (
        "a chunk of 48 steps takes 48.00 ms, the budget is 50 ms; the next divisor of 96 is 96"
    )
    assert tuned.trainers["few"].chunk_reason == "a whole run takes 7.00 ms, the budget is 50 ms"
    assert a_step_takes_1_ms == [{"many": 16, "few": 7}, {"many": 48, "few": 7}]
    assert system.trainers["many"].steps_per_chunk is None


def test_a_step_that_is_longer_than_the_budget_is_a_chunk_and_said(a_step_takes_1_ms: Any) -> None:
    tuned = pj.tune_chunks(system_of(t=scheduled(adding("t"), steps=4)), latency_budget_ms=0.5)
    assert tuned.trainers["t"].chunk == 1
    assert tuned.trainers["t"].chunk_reason == (
        "a step takes 1.00 ms, the budget is 0.5 ms, of which 0.25 ms are for the rest of the chunk before; "
        "the next divisor of 4 is 2"
    )


def test_what_is_said_or_not_compiled_stays(a_step_takes_1_ms: list[dict[str, int]]) -> None:
    said = scheduled(adding("said"), steps=8, steps_per_chunk=2)
    python = scheduled(python_trainer(lambda number: None, model="python"), steps=8)
    system = system_of(said=said, python=python)
    assert pj.tune_chunks(system, latency_budget_ms=50) is system
    assert a_step_takes_1_ms == []


def test_it_settles_where_measurements_go_up_and_down(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.chain([0.016], itertools.cycle([0.2, 0.001]))
    monkeypatch.setattr(tuning, "_chunk_seconds", lambda system, compile_it, names: {"t": next(seconds)})
    tuned = pj.tune_chunks(system_of(t=scheduled(adding("t"), steps=64)), latency_budget_ms=64)
    assert tuned.trainers["t"].chunk == 16


def test_what_a_call_takes_does_not_keep_chunks_short(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(system: pj.System, compile_it: Any, names: Any) -> dict[str, float]:
        return {name: 130e-6 + 0.55e-6 * system.trainers[name].chunk for name in names}

    monkeypatch.setattr(tuning, "_chunk_seconds", seconds)
    tuned = pj.tune_chunks(system_of(t=scheduled(adding("t"), steps=2000)), latency_budget_ms=5)
    assert tuned.trainers["t"].chunk_reason == "a whole run takes 1.23 ms, the budget is 5 ms"


def test_a_real_one_runs_and_says_why() -> None:
    with pytest.raises(InvalidValueError, match=r"tune_chunks\(latency_budget_ms\) is 0, expected more than 0"):
        pj.tune_chunks(system_of(), latency_budget_ms=0)
    system = system_of(t=scheduled(adding("t"), steps=32, when=pj.min_new(1)))
    tuned = pj.tune_chunks(system, latency_budget_ms=10_000)
    with pj.launch(tuned) as run:
        run.collect("x", 1.0)
        assert jax.tree.leaves(run.wait_for_version(1, PATIENCE).params)[0][0] == 32
        status = run.status.trainers["t"]
    assert status.steps_per_chunk == 32
    assert status.chunk_reason.startswith("a whole run takes ")


class TestOtherLengths:
    """What was begun with chunks of one length goes on with another where that can be exact."""

    def system(self, chunk: int | None) -> pj.System:
        schedule = pj.Schedule(
            learner(), data="seen", batch_size=4, steps=24, steps_per_chunk=chunk, when=pj.min_size(4)
        )
        return learning_system(SavedWorld(), trainers={"fit": schedule})

    def saved_within_a_run(self, directory: Path, chunk: int) -> int:
        """Return the state of a run of 24 steps after 12 of them."""
        always = pj.when(lambda now, last: True)
        pj.run_lockstep(self.system(chunk), 9, directory=directory, save=always, keep=latest_n(9))
        return next(info.number for info in StateStore(directory).states() if info.facts["steps"] == {"fit": 12})

    @pytest.mark.parametrize("chunk", [6, 3, 12])
    def test_a_run_goes_on_in_other_chunks(self, chunk: int, tmp_path: Path) -> None:
        number = self.saved_within_a_run(tmp_path, 6)
        rest = pj.run_lockstep(self.system(chunk), 1, directory=tmp_path, resume=number)
        run = rest.learner.trainers["fit"]
        assert (run.steps, run.chunk * chunk, run.chunk_steps) == (12 + chunk, 12 + chunk, chunk)
        assert run.phase is (TrainerPhase.WAITING if chunk == 12 else TrainerPhase.TRAINING)

    def test_a_run_whose_steps_are_no_whole_chunks_is_refused(self, tmp_path: Path) -> None:
        number = self.saved_within_a_run(tmp_path, 6)
        with pytest.raises(
            StateMismatchError, match=r"'fit' is within a run, 12 steps in: no whole number of chunks of 8"
        ):
            pj.run_lockstep(self.system(8), 1, directory=tmp_path, resume=number)

    def test_a_replay_takes_the_length_that_was_recorded(self, tmp_path: Path) -> None:
        with pj.launch(self.system(6), directory=tmp_path, record=True) as run:
            run.wait_for_version(2, PATIENCE)
        replayed = pj.replay(tmp_path, self.system(None))
        assert replayed.difference is None
        assert replayed.checked_version >= 2


class TestLaunch:
    """`launch(latency_budget_ms=)` tunes before READY."""

    def system(self, steps: int = 24, **changes: Any) -> pj.System:
        schedule = pj.Schedule(learner(), data="seen", batch_size=4, steps=steps, when=pj.min_size(4))
        return learning_system(SavedWorld(), trainers={"fit": dataclasses.replace(schedule, **changes)})

    def test_the_run_has_the_tuned_lengths_and_says_why(self, monkeypatch: pytest.MonkeyPatch) -> None:
        phases = list[str]()

        def seconds(system: pj.System, compile_it: Any, names: Any) -> dict[str, float]:
            phases.append("timed")
            return {name: 1e-3 * system.trainers[name].chunk for name in names}

        monkeypatch.setattr(tuning, "_chunk_seconds", seconds)
        system = self.system(96)
        with pj.launch(system, latency_budget_ms=50, on_transition=lambda made: phases.append(made.event)) as run:
            run.wait_for_version(1, PATIENCE)
            status, tuned = run.status.trainers["fit"], run.system
        assert phases[:4] == ["compile", "timed", "timed", "compiled"]
        assert (status.steps_per_chunk, tuned.trainers["fit"].chunk) == (48, 48)
        assert status.chunk_reason == (
            "a chunk of 48 steps takes 48.00 ms, the budget is 50 ms; the next divisor of 96 is 96"
        )
        assert system.trainers["fit"].steps_per_chunk is None

    def test_nothing_is_compiled_after_it(self, tmp_path: Path) -> None:
        how: dict[str, Any] = {"directory": tmp_path, "faults": pj.keep_acting(), "history": 1, "strict": True}
        with pj.launch(self.system(32), latency_budget_ms=10_000, **how) as run:
            run.wait_for_version(2, PATIENCE)
            status = run.status
        assert status.compiles_after_ready == 0
        assert status.trainers["fit"].chunk_reason.startswith("a whole run takes ")

    @pytest.mark.parametrize("budget", [0, -1.0, math.inf, math.nan, "5", True])
    def test_what_is_no_budget_is_refused(self, budget: Any) -> None:
        with pytest.raises(InvalidValueError, match=r"launch\(latency_budget_ms\) is .*, expected more than 0 .* 5 is"):
            pj.launch(self.system(), latency_budget_ms=budget)

    def test_without_a_budget_nothing_is_timed(self, a_step_takes_1_ms: list[dict[str, int]]) -> None:
        with pj.launch(self.system()) as run:
            run.wait_until_ready(PATIENCE)
        assert a_step_takes_1_ms == []

    @pytest.mark.parametrize("error", [ValueError("no such data"), KeyboardInterrupt(), SystemExit(3)])
    def test_what_fails_in_it_is_told_as_what_fails_in_compiling(
        self, error: BaseException, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> Any:
            raise error

        monkeypatch.setattr(tuning, "_chunk_seconds", fail)
        with (
            pytest.raises(WorkerError, match=f"worker 'compile' failed: {type(error).__name__}") as caught,
            pj.launch(self.system(), latency_budget_ms=5) as run,
        ):
            run.wait(PATIENCE)
        assert caught.value.__cause__ is error

    def test_the_chunks_are_timed_as_they_will_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        policies = list[pj.FaultPolicy]()

        def seconds(system: pj.System, compile_it: Any, names: Any) -> dict[str, float]:
            policies.append(compile_it(system).programs.faults)
            return dict.fromkeys(names, 1e-3)

        monkeypatch.setattr(tuning, "_chunk_seconds", seconds)
        faults = pj.keep_acting()
        with pj.launch(self.system(), latency_budget_ms=5, faults=faults) as run:
            run.wait_until_ready(PATIENCE)
        assert policies[0] is faults

    def test_a_run_that_is_gone_on_with_keeps_its_length(self, tmp_path: Path, a_step_takes_1_ms: Any) -> None:
        number = TestOtherLengths().saved_within_a_run(tmp_path, 6)
        with pj.launch(self.system(), directory=tmp_path, resume=number, latency_budget_ms=8) as run:
            run.wait_for_version(2, PATIENCE)
            schedule = run.system.trainers["fit"]
        assert (schedule.chunk, schedule.why_chunk) == (6, "as in the saved state, which is within a run")
        assert a_step_takes_1_ms == []

    def test_a_run_under_a_new_name_keeps_its_length(self, tmp_path: Path, a_step_takes_1_ms: Any) -> None:
        number = TestOtherLengths().saved_within_a_run(tmp_path, 6)
        system = self.system()
        renamed = dataclasses.replace(system, trainers={"new": system.trainers["fit"]})
        how: dict[str, Any] = {"resume": number, "rename": {"trainers": {"fit": "new"}}}
        with pj.launch(renamed, directory=tmp_path, latency_budget_ms=8, **how) as run:
            run.wait_for_version(2, PATIENCE)
            assert run.system.trainers["new"].chunk == 6

    def test_a_run_that_had_ended_is_tuned(self, tmp_path: Path, a_step_takes_1_ms: Any) -> None:
        pj.run_lockstep(TestOtherLengths().system(24), 9, directory=tmp_path, save=pj.every_versions(1))
        with pj.launch(self.system(), directory=tmp_path, resume=True, latency_budget_ms=8) as run:
            run.wait_until_ready(PATIENCE)
            assert run.system.trainers["fit"].chunk == 6  # two milliseconds are for the rest of the chunk before

    def test_a_replay_takes_the_tuned_lengths(self, tmp_path: Path, a_step_takes_1_ms: Any) -> None:
        with pj.launch(self.system(), directory=tmp_path, record=True, latency_budget_ms=8) as run:
            run.wait_for_version(2, PATIENCE)
        replayed = pj.replay(tmp_path, self.system())
        assert replayed.difference is None
        assert replayed.checked_version >= 2
        assert pj.Recording(tmp_path).begin.chunk_steps == {"fit": 6}
