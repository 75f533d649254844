"""Trainers that fail under `keep_acting`: saved and resumed in lockstep, and live while the agent acts."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pamiq_jax as pj
from pamiq_jax.checkpoint import StateStore, latest_n
from pamiq_jax.errors import InvalidValueError, QuarantinedError, UnknownNameError, WorkerError
from pamiq_jax.lifecycle import SystemPhase, TrainerEvent, TrainerPhase
from pamiq_jax.runtime import Compiled, Faults, Good
from pamiq_jax.runtime.saved import first_cut, restored_cut, stored_value
from pamiq_jax.trainer import guard
from tests.runtime.fakes import PATIENCE, assert_equal_trees, fed_system, learner, learning_system, python_trainer
from tests.runtime.test_repair import halve
from tests.runtime.test_resume import SavedWorld, parts_of
from tests.runtime.test_rollback import failing, raise_fish

POLICY = pj.keep_acting(restarts=20, backoff_seconds=0.003, max_backoff_seconds=0.005)
"""Long enough for several ticks of an agent without an interval to come between a failure and the restart."""

NO_DEADLINES = pj.Deadlines(**dict.fromkeys(pj.Deadlines().limits))
"""For a clock that runs a thousand times as fast."""


LEARNER = learner()
STEP = jax.jit(LEARNER.step)


def fragile() -> pj.System:
    """Return a system of two trainers, one of which fails in its second chunk on what is seen at ticks 6 to 8."""

    def step(state: Any, batch: Any) -> Any:
        if np.any(np.isin(np.asarray(batch["observation"])[:, 0], (6, 7, 8))) and int(state.step) % 4 >= 2:
            raise ValueError("a bad batch")
        return STEP(state, batch)

    parts: dict[str, Any] = {"data": "seen", "batch_size": 2, "steps": 4, "steps_per_chunk": 2, "when": pj.min_new(2)}
    return learning_system(
        SavedWorld(),
        models={"policy": pj.Model(jnp.zeros(3)), "value": pj.Model(jnp.zeros(3))},
        buffers={"seen": pj.ring_buffer(4, sampling="in_order")},
        trainers={
            "fit": pj.Schedule(LEARNER._replace(step=step, compiled=False), **parts),
            "other": pj.Schedule(python_trainer(lambda number: None, model="value"), **parts),
        },
    )


class TestSaved:
    def test_saved_before_during_and_after_a_backoff_it_goes_on_bit_for_bit(self, tmp_path: Path) -> None:
        def run(ticks: int, **options: Any) -> pj.LockstepResult:
            options = {"faults": POLICY, "directory": tmp_path, "keep": latest_n(100), **options}
            return pj.run_lockstep(fragile(), ticks, train_ticks=2, **options)

        whole = run(30, save=pj.always())
        assert whole.learner.trainers["fit"].faults.rollbacks > 1
        assert whole.learner.trainers["fit"].finished > 3
        cases: dict[tuple[bool, bool], tuple[int, int]] = {}
        store = StateStore(tmp_path)
        for number in range(1, 30):
            value = store.read(number)
            stored = value["faults"]["fit"]
            assert (stored["restarts"] > 0) == (stored["error"] == "ValueError: a bad batch")
            # Whether it has failed, and whether it is within a run; the last of each kind.
            case = stored["restarts"] > 0, bool(stored["good"])
            cases[case] = number, value["leaves"]["['interactions']['agent']['tick']"]
        assert set(cases) == {(False, False), (False, True), (True, False), (True, True)}
        del cases[False, False]  # as if it had never failed
        for number, ticks in cases.values():
            rest = run(30 - ticks, resume=number)
            assert_equal_trees(parts_of(whole), parts_of(rest))

    def test_one_that_was_quarantined_stays_so_until_it_is_revived(self, tmp_path: Path) -> None:
        def run(ticks: int, faults: pj.FaultPolicy, **options: Any) -> pj.LockstepResult:
            return pj.run_lockstep(system, ticks, faults=faults, directory=tmp_path, **options)

        system = learning_system(SavedWorld(), trainers={"fit": pj.Schedule(failing(3, 4), data="seen", batch_size=1)})
        policy = pj.keep_acting(restarts=1, backoff_seconds=0.0)
        first = run(5, policy).learner.trainers["fit"]
        assert (first.phase, first.faults.restarts, int(first.state.step)) == (TrainerPhase.FAILED, 1, 2)
        for faults in (policy, pj.fail_fast()):  # twice, since it is saved again
            rest = run(2, faults, resume=True)
            kept = rest.learner.trainers["fit"]
            assert (kept.phase, kept.faults.is_quarantined, rest.snapshot.version) == (TrainerPhase.FAILED, True, 2)
            assert kept.reason == "quarantined before the resume: ValueError: call 4"
        rest = run(5, pj.fail_fast(), resume=True, revive=("fit",))
        revived = rest.learner.trainers["fit"]
        assert (revived.faults, int(revived.state.step), rest.snapshot.version) == (Faults(rollbacks=1), 7, 7)

    def test_one_that_failed_fast_begins_anew(self, tmp_path: Path) -> None:
        trainers = {"fit": pj.Schedule(failing(3), data="seen", batch_size=1)}
        with pj.launch(learning_system(trainers=trainers), directory=tmp_path) as run:
            with pytest.raises(WorkerError, match="call 3"):
                run.wait(PATIENCE)
            run.save(PATIENCE)
        with pj.launch(learning_system(trainers=trainers), directory=tmp_path, resume=True) as run:
            run.wait_for_version(3, PATIENCE)
            assert run.status.trainers["fit"].phase is not TrainerPhase.FAILED

    def test_what_is_to_be_revived_must_exist(self) -> None:
        with pytest.raises(UnknownNameError, match=r"no trainer is named 'fat'.*fit"):
            pj.launch(learning_system(), revive=("fat",))
        with pytest.raises(
            InvalidValueError, match=r"run_lockstep\(revive\) is 'fit', expected a tuple of trainer names"
        ):
            pj.run_lockstep(learning_system(), 1, revive="fit")

    def test_policies_learn_the_same_and_resume_each_others_states(self, tmp_path: Path) -> None:
        system = learning_system(SavedWorld())
        pj.run_lockstep(system, 4, directory=tmp_path)
        rest = pj.run_lockstep(system, 4, faults=POLICY, directory=tmp_path, resume=True)
        assert rest.learner.trainers["fit"].faults.good is not None
        whole = pj.run_lockstep(system, 8)
        assert whole.learner.trainers["fit"].faults == Faults()
        assert_equal_trees(rest.snapshot.params, whole.snapshot.params)
        assert_equal_trees(rest.learner.trainers["fit"].state, whole.learner.trainers["fit"].state)

    def test_what_it_goes_back_to_follows_new_names_or_is_what_was_restored(self) -> None:
        def compiled(model: str, trainer: str) -> Compiled:
            schedule = pj.Schedule(python_trainer(raise_fish, model=model), data="x", batch_size=1)
            system = fed_system(models={model: pj.Model(jnp.zeros(3))}, trainers={trainer: schedule})
            return pj.compile_system(system, faults=POLICY)

        before, after = compiled("policy", "fit"), compiled("mind", "learn")
        run = before.learner.trainers["fit"]
        good = Good(run.state.replace(params={"policy": jnp.full(3, 2.0)}), {"": pj.Progress(seen=4)}, {})
        faults = Faults(1, 2, 3.5, "ValueError: bad", good)
        learner = before.learner.with_trainer("fit", run._replace(faults=faults))
        value = stored_value(first_cut(before)._replace(learner=learner))
        rename = {"models": {"policy": "mind"}, "trainers": {"fit": "learn"}}
        cut, _ = restored_cut(after, value, rename=rename)
        restored = cut.learner.trainers["learn"]
        assert restored.faults._replace(good=None) == faults._replace(good=None)
        assert restored.faults.good is not None
        assert_equal_trees(restored.faults.good.state.params, {"mind": np.full(3, 2.0, np.float32)})
        assert restored.faults.good.last == good.last
        del value["faults"]["fit"]["good"]["['trainers']['fit']['state'].step"]
        restored = restored_cut(before, value)[0].learner.trainers["fit"]
        assert restored.faults.good == Good(restored.state, restored.last, restored.after)
        del value["faults"]  # as an earlier version wrote it
        assert restored_cut(before, value)[0].learner.trainers["fit"].faults == Faults()


class Witness:
    """Notes transitions, and lets one wait for an event of a trainer."""

    def __init__(self) -> None:
        self.events: list[TrainerEvent] = []
        self.is_over = threading.Event()

    def __call__(self, transition: pj.Transition) -> None:
        if isinstance(transition.event, TrainerEvent):
            self.events.append(transition.event)
            if transition.event is TrainerEvent.FAIL:
                self.is_over.set()


class TestLive:
    def test_a_learning_rate_is_halved_until_it_learns_and_nothing_compiles(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        def loss_fn(params: Any, batch: Any, rng_key: jax.Array) -> Any:  # least at 1, not a number above 3
            value = params["policy"]
            return jnp.mean((value - 1.0) ** 2 + 0.0 * jnp.sqrt(3.0 - value)), {}

        trainer = guard(pj.gradient_trainer(loss_fn, optax.inject_hyperparams(optax.sgd)(learning_rate=40.0)))
        schedule = pj.Schedule(trainer, data="seen", batch_size=1, steps=4, steps_per_chunk=4, when=pj.min_new(1))
        policy = pj.keep_acting(restarts=9, backoff_seconds=10.0, repair=halve, bad_updates=3)
        witness, rows = Witness(), []
        with (
            caplog.at_level(logging.WARNING, "pamiq_jax"),
            pj.launch(
                learning_system(trainers={"fit": schedule}),
                faults=policy,
                strict=True,
                time_scale=1e3,  # the first backoff lasts 10 ms
                deadlines=NO_DEADLINES,
                on_transition=witness,
                on_metrics=rows.append,
            ) as run,
        ):
            run.wait_for_version(1, PATIENCE)
            status, rate = run.status, run.trainers["fit"].hyperparameters()["learning_rate"]
            assert run.wait(0) is pj.WaitResult.TIMEOUT
        rollbacks = witness.events.count(TrainerEvent.ROLL_BACK)
        assert (rollbacks, rate) == (4, 2.5)
        assert status.trainers["fit"].rollbacks == rollbacks
        assert status.errors == ()
        assert "steps, 4 rollbacks (" in str(status)
        assert [row.metrics["rollbacks"] for row in rows if "rollbacks" in row.metrics] == [*range(1, rollbacks + 1)]
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == rollbacks
        assert "TooManyBadUpdatesError" in warnings[0].getMessage()

    def test_the_agent_goes_on_when_its_trainer_does_not(self, caplog: pytest.LogCaptureFixture) -> None:
        witness, acted = Witness(), threading.Semaphore(0)

        def on_interaction(report: Any) -> None:
            if witness.is_over.is_set():
                acted.release()

        schedule = pj.Schedule(python_trainer(raise_fish), data="seen", batch_size=1)
        with pj.launch(
            learning_system(trainers={"fit": schedule}),
            faults=pj.keep_acting(restarts=2, backoff_seconds=10.0),
            time_scale=1e3,
            deadlines=NO_DEADLINES,
            on_transition=witness,
            on_interaction=on_interaction,
        ) as run:
            assert witness.is_over.wait(PATIENCE)
            for _ in range(20):
                assert acted.acquire(timeout=PATIENCE)
            run.pause()
            status = run.status
            assert run.wait(0) is pj.WaitResult.TIMEOUT
            assert status.phase is SystemPhase.PAUSED
            assert status.trainers["fit"].phase is TrainerPhase.FAILED
            assert status.trainers["fit"].reason == "quarantined after 2 restarts: ValueError: the loss is a fish"
            assert status.trainers["fit"].error == "ValueError: the loss is a fish"
            assert status.errors == (
                "worker 'trainer fit' failed: ValueError: the loss is a fish (while it was training)",
            )
            run.resume()
        assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "ERROR"]

    def test_whoever_waits_for_what_will_not_come_is_told_why_also_after_a_resume(self, tmp_path: Path) -> None:
        trainers = {"fit": pj.Schedule(failing(2), data="seen", batch_size=1)}
        options: dict[str, Any] = {"faults": pj.keep_acting(restarts=0), "directory": tmp_path}
        reason = "will not be published: trainer 'fit' is quarantined"
        with pj.launch(learning_system(trainers=trainers), **options) as run:
            with pytest.raises(QuarantinedError, match=f"version 2 {reason} after 0 restarts: ValueError: call 2"):
                run.wait_for_version(2, PATIENCE)
            assert run.wait_for_version(1, PATIENCE).version == 1
            run.save(PATIENCE)
        with pj.launch(learning_system(trainers=trainers), resume=True, **options) as run:
            with pytest.raises(QuarantinedError, match=rf"{reason} before the resume: .* with revive=\('fit',\)"):
                run.wait_for_version(2, PATIENCE)
            status = run.status
            assert status.trainers["fit"].phase is TrainerPhase.FAILED
            assert "quarantined before the resume" in status.errors[0]
        with pj.launch(learning_system(trainers=trainers), resume=True, revive=True, **options) as run:
            run.wait_for_version(2, PATIENCE)

    def test_while_it_waits_the_status_says_so_and_the_agent_acts(self) -> None:
        witness, acted = Witness(), threading.Semaphore(0)
        schedule = pj.Schedule(failing(1), data="seen", batch_size=1)
        with pj.launch(
            learning_system(trainers={"fit": schedule}),
            faults=pj.keep_acting(backoff_seconds=1e6, max_backoff_seconds=1e6),
            on_transition=witness,
            on_interaction=lambda report: acted.release() if TrainerEvent.ROLL_BACK in witness.events else None,
        ) as run:
            for _ in range(20):
                assert acted.acquire(timeout=PATIENCE)
            run.pause()
            trainer = run.status.trainers["fit"]
            assert (trainer.phase, trainer.restarts, trainer.rollbacks) == (TrainerPhase.WAITING, 1, 1)
            assert trainer.reason.startswith("restarts in ")
            assert trainer.reason.endswith(" s after 1 failure: ValueError: call 1")
            run.resume()
