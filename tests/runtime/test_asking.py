"""Conditions and buffers of a user's own that raise: whom that concerns, and that nobody else notices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pamiq_jax as pj
from pamiq_jax.errors import WorkerError
from pamiq_jax.lifecycle import TrainerEvent, TrainerPhase
from tests.runtime.fakes import PATIENCE, fed_system, python_trainer
from tests.runtime.test_train import Bench, schedule

KEEP_ACTING = pj.keep_acting(restarts=2, backoff_seconds=1.0)
CALM = python_trainer(lambda number: None, model="calm")


class Whim:
    """A condition's function that raises as long as it does not like it, and holds otherwise."""

    def __init__(self, *, raises: bool = True) -> None:
        self.raises = raises

    def __call__(self, now: pj.Progress, last: pj.Progress) -> bool:
        if self.raises:
            raise ValueError("no idea")
        return True


def two(when: pj.Condition, **changes: Any) -> pj.System:
    """Return a system with the trainer "fit", of this condition, and the trainer "calm" on the same buffer."""
    return fed_system(
        models={"policy": pj.Model(jnp.zeros(3)), "calm": pj.Model(jnp.zeros(3))},
        trainers={
            "fit": schedule(python_trainer(lambda number: None), when=when, **changes),
            "calm": schedule(CALM, when=pj.min_new(1)),
        },
    )


def fed(system: pj.System, **options: Any) -> Bench:
    bench = Bench(system, **options)
    bench.feed(4)
    return bench


class TestCondition:
    def test_it_is_the_failure_of_its_trainer_alone(self) -> None:
        bench = fed(two(pj.when(Whim())))
        report = bench.tick()
        assert report.trainer == "fit"
        with pytest.raises(WorkerError, match=r"\"condition of trainer 'fit'\" failed: ValueError: no idea"):
            raise report.error
        assert bench.events == [("fit", TrainerEvent.FAIL)]
        assert bench.run().reason.startswith("failed: WorkerError: worker \"condition of trainer 'fit'\"")
        assert (bench.tick().trainer, bench.run("calm").finished) == ("calm", 1)

    def test_its_trainer_is_asked_again_after_a_backoff_and_quarantined_in_the_end(self) -> None:
        whim = Whim()
        bench = fed(two(pj.when(whim)), faults=KEEP_ACTING)
        assert bench.tick().error is not None
        assert (bench.run().phase, bench.run().faults.restarts) == (TrainerPhase.WAITING, 1)
        assert bench.tick().trainer == "calm"
        bench.clock.advance(1.0)
        whim.raises = False
        report = bench.tick()
        assert (report.trainer, report.error, bench.run().faults.restarts) == ("fit", None, 0)
        whim.raises = True
        for _ in range(3):
            assert bench.tick().trainer == "fit"
            bench.clock.advance(10.0)
        assert bench.run().phase is TrainerPhase.FAILED
        assert bench.run().reason.startswith('quarantined after 2 restarts: WorkerError: worker "condition of')
        assert bench.run().faults.rollbacks == 3  # one before the good run, two after it
        bench.feed(1)
        assert bench.tick().trainer == "calm"

    def test_what_it_lets_go_is_asked_for_when_a_run_begins(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def forgive(condition: Any, now: pj.Progress, last: pj.Progress) -> int:
            raise ValueError("never")

        condition = pj.when(Whim(raises=False))
        monkeypatch.setattr(type(condition), "forgive", forgive)
        report = fed(two(condition)).tick()
        assert "\"condition of trainer 'fit'\" failed: ValueError: never" in str(report.error)


class TestBuffer:
    @pytest.mark.parametrize("function", ["can_sample", "required"])
    def test_what_is_asked_for_one_trainer_concerns_that_one(self, function: str) -> None:
        bench = fed(two(pj.min_size(1)))

        def ask(*arguments: Any) -> Any:
            if not bench.events:
                raise OSError("no answer")
            return 1

        if function == "can_sample":
            bench.programs = bench.programs._replace(can_sample={"x": ask})
        else:
            buffer = bench.programs.system.buffers["x"]._replace(required=ask)
            bench.programs.system.buffers["x"] = buffer  # type: ignore[index]
        report = bench.tick()
        message = rf"\"{function} of buffer 'x', asked for trainer 'fit'\" failed: OSError: no answer"
        with pytest.raises(WorkerError, match=message):
            raise report.error
        assert bench.run().phase is TrainerPhase.FAILED
        assert bench.tick().trainer == "calm"

    @pytest.mark.parametrize("policy", [pj.fail_fast(), KEEP_ACTING])
    def test_add_concerns_all_that_learn_from_it_for_good(self, policy: pj.FaultPolicy) -> None:
        system = fed_system(
            models={name: pj.Model(jnp.zeros(3)) for name in ("policy", "calm", "far")},
            buffers={name: pj.ring_buffer(100, example=0.0) for name in ("x", "y")},
            trainers={
                "fit": schedule(python_trainer(lambda number: None), steps=4, steps_per_chunk=1),
                "calm": schedule(CALM, when=pj.min_new(1000)),
                "far": schedule(python_trainer(lambda number: None, model="far"), data="y", when=pj.min_new(1)),
            },
        )
        bench = fed(system, faults=policy)
        bench.tick()
        assert bench.run().phase is TrainerPhase.TRAINING
        bench.programs = bench.programs._replace(add={**bench.programs.add, "x": raise_full})
        bench.feed(1)
        for value in (1.0, 2.0):
            bench.cells.collectors["y"].collect(value, version=0)
        reports = [bench.tick() for _ in range(3)]
        assert sorted(report.trainer for report in reports) == ["calm", "far", "fit"]
        for report in reports[:2]:
            with pytest.raises(WorkerError, match=r"\"add of buffer 'x'\" failed: MemoryError: full"):
                raise report.error
        assert [bench.run(name).phase for name in ("fit", "calm")] == [TrainerPhase.FAILED] * 2
        assert ("quarantined" in bench.run().reason) == (not policy.raises)
        assert (reports[2].error, bench.run("far").finished) == (None, 1)
        bench.feed(3)
        assert bench.tick().error is None
        assert bench.cells.collectors["x"].counts.pending == 0  # dropped, so that it does not fill up
        assert bench.learner.buffers["x"].inserted == 4

    def test_add_of_a_buffer_that_nobody_learns_from_is_told_once(self) -> None:
        bench = Bench(fed_system())
        bench.programs = bench.programs._replace(add={"x": raise_full})
        bench.feed(1)
        report = bench.tick()
        assert (report.trainer, report.wake.milliseconds) == (None, 0)
        assert "add of buffer 'x'" in str(report.error)
        bench.feed(1)
        assert bench.tick().error is None


def raise_full(*arguments: Any) -> Any:
    raise MemoryError("full")


def refusing(buffer: pj.Buffer[Any, Any, Any], value: float) -> pj.Buffer[Any, Any, Any]:
    """Return a buffer whose `add`, compiled, raises on the host when a record has this value."""

    def check(data: Any) -> Any:
        if np.any(np.asarray(data) == value):
            raise ValueError("unlucky")
        return np.asarray(data)

    def add(state: Any, records: Any, count: Any) -> Any:
        checked = jax.pure_callback(check, jax.ShapeDtypeStruct(records.data.shape, records.data.dtype), records.data)
        return buffer.add(state, records._replace(data=checked), count)

    return buffer._replace(add=add)


def live(system: pj.System, look: Callable[[pj.Run], None], **options: Any) -> list[str]:
    """Run a system until its error has been told, and return what has been told, oldest first."""
    with pj.launch(system, **options) as run:
        look(run)
        return list(run.status.errors)


class TestLive:
    def test_the_run_raises_it_by_name_and_the_others_go_on(self) -> None:
        def look(run: pj.Run) -> None:
            with pytest.raises(WorkerError, match="condition of trainer 'fit'") as raised:
                run.wait(PATIENCE)
            assert isinstance(raised.value.__cause__, ValueError)
            run.collect("x", 1.0)
            run.collect("x", 2.0)
            run.wait_for_version(1, PATIENCE)

        assert len(live(two(pj.when(Whim())), look)) == 1

    def test_a_compiled_add_that_raises_stops_nobody_else(self) -> None:
        system = fed_system(
            models={name: pj.Model(jnp.zeros(3)) for name in ("policy", "calm")},
            buffers={
                "x": refusing(pj.ring_buffer(10, example=0.0), 13.0),
                "y": pj.ring_buffer(10, example=0.0),
            },
            trainers={
                "fit": schedule(python_trainer(lambda number: None), when=pj.min_new(1)),
                "calm": schedule(CALM, data="y", when=pj.min_new(2)),
            },
        )

        def look(run: pj.Run) -> None:
            for value in (1.0, 13.0):
                run.collect("x", value)
            # With an asynchronous computation it is whoever awaits it first that fails: the trainer then.
            with pytest.raises(WorkerError, match="unlucky"):
                run.wait(PATIENCE)
            for version in (1, 2):
                for value in (1.0, 2.0):
                    run.collect("y", value)
                run.wait_for_version(version, PATIENCE)

        live(system, look)

    def test_a_save_policy_is_told_and_not_asked_again(self, tmp_path: Path) -> None:
        def look(run: pj.Run) -> None:
            with pytest.raises(WorkerError, match=r"no idea \(in the policy `save`, which is not asked any more"):
                run.wait(PATIENCE)
            run.collect("x", 1.0)
            run.collect("x", 2.0)
            run.wait_for_version(1, PATIENCE)
            assert run.save(PATIENCE).number == 1

        assert len(live(two(pj.min_new(1)), look, save=pj.when(Whim()), directory=tmp_path)) == 1
