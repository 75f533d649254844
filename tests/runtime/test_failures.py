"""What a launched system does when a part of it raises: the rest goes on, and the owner is told why."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Mapping
from types import FrameType, MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pamiq_jax as pj
from pamiq_jax.errors import (
    CompileAfterReadyError,
    InvalidTransitionError,
    InvalidValueError,
    NonFiniteError,
    StepStructureError,
    WorkerError,
)
from pamiq_jax.lifecycle import SystemPhase, TrainerPhase
from tests.runtime.fakes import (
    AGENT,
    PATIENCE,
    World,
    fed_system,
    learner,
    learning_system,
    nan_trainer,
    python_trainer,
    wait_for_phase,
)


def leave_after_a_failure(error: Exception | None = None) -> None:
    """Leave a system's context after a trainer has failed, by an error of one's own if one is given."""
    has_failed = threading.Event()

    def fail(number: int) -> None:
        has_failed.set()
        raise ValueError("unnoticed")

    schedule = pj.Schedule(python_trainer(fail), data="x", batch_size=1)
    with pj.launch(fed_system(schedule)) as run:
        run.collect("x", 0.0)
        assert has_failed.wait(PATIENCE)
        if error is not None:
            raise error


class TestTrainer:
    def test_the_agent_goes_on_and_wait_raises_once_with_the_cause(self) -> None:
        acted_after, runs = threading.Event(), []

        def fail(number: int) -> None:
            if number == 3:
                raise ValueError("the loss is a fish")

        def on_interaction(report: Any) -> None:
            if runs and runs[0].status.errors:
                runs.append(report.version)
            if len(runs) == 20:
                acted_after.set()

        schedule = pj.Schedule(python_trainer(fail), data="seen", batch_size=1)
        with pj.launch(learning_system(trainers={"fit": schedule}), on_interaction=on_interaction) as run:
            runs.append(run)
            with pytest.raises(WorkerError, match="worker 'trainer fit' failed: ValueError: the loss") as caught:
                run.wait(PATIENCE)
            assert isinstance(caught.value.__cause__, ValueError)
            assert caught.value.worker == "trainer fit"
            assert acted_after.wait(PATIENCE)
            status = run.status
            assert (status.phase, status.trainers["fit"].phase) == (SystemPhase.RUNNING, TrainerPhase.FAILED)
            assert status.trainers["fit"].reason == "failed: ValueError: the loss is a fish"
            assert "error: worker 'trainer fit' failed" in str(status)
            assert run.wait(0) is pj.WaitResult.TIMEOUT  # told once
            run.pause()  # commands still work
            run.resume()
        assert set(runs[2:]) == {2}  # the first may have begun before the last publication

    def test_leaving_the_context_raises_what_nobody_was_told(self) -> None:
        with pytest.raises(WorkerError, match="unnoticed"):
            leave_after_a_failure()

    def test_the_bodys_own_error_comes_first(self) -> None:
        with pytest.raises(KeyError, match="mine"):
            leave_after_a_failure(KeyError("mine"))

    @pytest.mark.parametrize("strict", [True, False])
    def test_what_is_not_finite_stays_unpublished(self, strict: bool) -> None:
        trainers = {name: nan_trainer(at, model=name) for name, at in (("a", 2), ("b", 10**6))}
        system = fed_system(
            models={name: pj.Model(jnp.zeros(3)) for name in trainers},
            trainers={name: pj.Schedule(trainer, data="x", batch_size=1) for name, trainer in trainers.items()},
        )
        with pj.launch(system, strict=strict) as run:
            run.collect("x", 0.0)
            with pytest.raises(WorkerError, match="worker 'trainer a' failed: NonFiniteError") as caught:
                run.wait(PATIENCE)
            assert isinstance(caught.value.__cause__, NonFiniteError)
            before = run.snapshot
            after = run.wait_for_version(before.version + 3, PATIENCE)  # the other trainer goes on
            np.testing.assert_array_equal(after.params["a"], np.ones(3))


class Broken(World):
    """Raises in one of its methods, at the third tick where it is asked more than once."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.method = method

    def _break(self, method: str) -> None:
        if method == self.method and (method in ("reset", "close") or len(self.shown) == 3):
            raise OSError(f"{method} broke")

    def reset(self, seed: int) -> None:
        super().reset(seed)
        self._break("reset")

    def observe(self) -> np.ndarray:
        self._break("observe")
        return super().observe()

    def affect(self, action: Any) -> dict[str, Any]:
        self._break("affect")
        return super().affect(action)

    def close(self) -> None:
        super().close()
        self._break("close")


class TestInference:
    @pytest.mark.parametrize("method", ["reset", "observe", "affect"])
    def test_a_raising_environment_fails_the_system(self, method: str) -> None:
        world = Broken(method)
        with pj.launch(learning_system(world)) as run:
            with pytest.raises(
                WorkerError, match=f"worker 'pamiq-inference' failed: OSError: {method} broke"
            ) as caught:
                run.wait(PATIENCE)
            assert isinstance(caught.value.__cause__, OSError)
            assert run.wait(PATIENCE) is pj.WaitResult.ENDED
            assert run.status.phase is SystemPhase.FAILED
            assert world.closed.wait(PATIENCE)
            with pytest.raises(InvalidTransitionError, match="pause is not possible in phase failed"):
                run.pause()

    def test_a_raising_close_is_reported(self) -> None:
        with pj.launch(learning_system(Broken("close"))) as run:
            run.wait_for_version(1, PATIENCE)
            run.stop()
            with pytest.raises(
                WorkerError, match=r"environment\.close of interaction 'agent'. failed: OSError: close broke"
            ):
                run.wait(0)
        assert run.status.phase is SystemPhase.STOPPED

    def test_a_raising_agent_fails_the_system(self) -> None:
        class Agent:
            extras: Mapping[str, Any] = MappingProxyType({})

            def reset(self, seed: int) -> None:
                assert seed == 0

            def act(self, params: Any, observation: Any) -> Any:
                raise RuntimeError("no idea what to do")

        world = World()
        with pj.launch(learning_system(interaction=pj.Interaction(Agent(), world))) as run:
            with pytest.raises(WorkerError, match="RuntimeError: no idea what to do"):
                run.wait(PATIENCE)
            wait_for_phase(run, SystemPhase.FAILED)
        assert world.closed.is_set()

    def test_a_raising_callback_fails_the_system(self) -> None:
        def on_interaction(report: Any) -> None:
            raise TypeError("my callback")

        with pj.launch(learning_system(), on_interaction=on_interaction) as run:
            with pytest.raises(WorkerError, match="TypeError: my callback"):
                run.wait(PATIENCE)
            wait_for_phase(run, SystemPhase.FAILED)


class TestCompiling:
    def test_an_error_fails_the_system(self) -> None:
        world = World()
        trainer = learner()._replace(setup=lambda state: state.replace(step=state.step.astype(jnp.float32)))
        schedule = pj.Schedule(trainer, data="seen", batch_size=2)
        with pj.launch(learning_system(world, trainers={"fit": schedule})) as run:
            with pytest.raises(WorkerError, match="worker 'compile' failed: StepStructureError: setup") as caught:
                run.wait_until_ready()
            assert isinstance(caught.value.__cause__, StepStructureError)
            wait_for_phase(run, SystemPhase.FAILED)
            with pytest.raises(InvalidValueError, match="run is 'failed', expected a run that became ready"):
                run.collect("seen", 1.0)
        assert world.closed.is_set()

    def test_strict_refuses_a_later_compile(self) -> None:
        def on_step(number: int) -> None:
            jnp.zeros(number + 1000).sum()  # another shape at each step

        schedule = pj.Schedule(python_trainer(on_step), data="x", batch_size=1)
        with pj.launch(fed_system(schedule), strict=True) as run:
            run.collect("x", 0.0)
            with pytest.raises(WorkerError, match="programs were compiled in pamiq-training after READY") as caught:
                run.wait(PATIENCE)
            assert isinstance(caught.value.__cause__, CompileAfterReadyError)

    def test_otherwise_it_is_counted(self) -> None:
        def on_step(number: int) -> None:
            jnp.zeros(number + 2000).sum()

        schedule = pj.Schedule(python_trainer(on_step), data="x", batch_size=1)
        with pj.launch(fed_system(schedule)) as run:
            run.collect("x", 0.0)
            run.wait_for_version(2, PATIENCE)
            assert run.status.compiles_after_ready > 0


class TestMetrics:
    def test_a_raising_callback_is_reported_and_stops_nobody(self) -> None:
        def on_metrics(row: Any) -> None:
            raise ValueError("no disk")

        with pj.launch(learning_system(), on_metrics=on_metrics) as run:
            with pytest.raises(WorkerError, match="worker 'pamiq-metrics' failed: ValueError: no disk"):
                run.wait(PATIENCE)
            run.wait_for_version(run.snapshot.version + 2, PATIENCE)
            assert run.status.phase is SystemPhase.RUNNING


class TestInterrupt:
    def test_it_stops_the_system_and_not_the_interpreter(self) -> None:
        main, has_sent = threading.main_thread().ident, threading.Event()
        assert main is not None

        def interrupt_once_it_waits(report: Any) -> None:
            if not has_sent.is_set() and _is_asleep_in(sys._current_frames()[main], pj.Run.wait):
                has_sent.set()
                signal.pthread_kill(main, signal.SIGINT)

        world = World()
        interaction = pj.Interaction(AGENT, world)
        run = pj.launch(learning_system(interaction=interaction), on_interaction=interrupt_once_it_waits)
        assert run.wait(PATIENCE) is pj.WaitResult.INTERRUPTED
        assert run.status.phase is SystemPhase.STOPPED
        assert world.closed.is_set()
        assert run.wait() is pj.WaitResult.ENDED


def _is_asleep_in(frame: FrameType | None, function: Any) -> bool:
    """Return whether a thread's stack ends in a condition's wait, called from this function."""
    if frame is None or frame.f_code is not threading.Condition.wait.__code__:
        return False
    while frame is not None and frame.f_code is not function.__code__:
        frame = frame.f_back
    return frame is not None


class TestNames:
    """What raised is named, wherever it was."""

    @pytest.mark.parametrize("function", ["setup", "step", "teardown"])
    @pytest.mark.parametrize("compiled", [True, False])
    def test_a_trainers_functions(self, function: str, *, compiled: bool) -> None:
        def broken(*arguments: Any) -> Any:
            raise ValueError("boom")

        trainer = (learner() if compiled else python_trainer(lambda number: None))._replace(**{function: broken})
        example = {"observation": np.zeros(3, np.float32)}
        system = fed_system(
            pj.Schedule(trainer, data="x", batch_size=1), buffers={"x": pj.ring_buffer(9, example=example)}
        )
        run = pj.launch(system)
        if not compiled:
            run.collect("x", example)
        with pytest.raises(WorkerError) as raised:
            run.wait(PATIENCE)
        run.stop()
        phase = {"setup": "setting_up", "step": "training", "teardown": "tearing_down"}[function]
        where = f"in `{function}`) (while trainer 'fit' was compiled" if compiled else f"while it was {phase}"
        assert f"ValueError: boom ({where})" in str(raised.value)

    def test_on_interaction_and_on_metrics(self) -> None:
        def broken(report: Any) -> None:
            raise ValueError("boom")

        for name in ("on_interaction", "on_metrics"):
            run = pj.launch(learning_system(), **{name: broken})
            with pytest.raises(WorkerError, match=f"ValueError: boom \\(in {name}\\)"):
                run.wait(PATIENCE)
            run.stop()

    def test_a_pause_that_a_hook_has_ended_says_so(self) -> None:
        def broken() -> None:
            raise ValueError("boom")

        system = learning_system(interaction=pj.Interaction(AGENT, World(), on_paused=broken))
        run = pj.launch(system)
        run.wait_for_version(1, PATIENCE)
        with pytest.raises(InvalidTransitionError) as raised:
            run.pause()
        assert "on_paused of interaction 'agent'" in str(raised.value.__cause__)
        assert str(raised.value).endswith("worker \"on_paused of interaction 'agent'\" failed: ValueError: boom")
        with pytest.raises(InvalidTransitionError, match=r"resume is not possible in phase failed; .*ValueError: boom"):
            run.resume()
        run.stop()

    def test_a_subscriber_that_raises_is_told_nothing_more(self) -> None:
        told: list[Any] = []

        def broken(transition: Any) -> None:
            told.append(transition)
            raise ValueError("boom")

        with pj.launch(learning_system()) as run:
            run.wait_for_version(1, PATIENCE)
            run.subscribe(broken)
            with pytest.raises(WorkerError, match="on_transition broken"):
                run.wait(PATIENCE)
            run.wait_for_version(run.snapshot.version + 3, PATIENCE)
        assert len(told) == 1


def test_a_model_is_published_as_a_floating_point_number() -> None:
    for dtype in (jnp.int8, "floaty"):
        with pytest.raises(InvalidValueError, match=r"Model\(dtype\) is .*, expected a floating-point dtype"):
            pj.Model(0.5, dtype=dtype)


def test_what_inference_may_not_see_is_not_published_by_name() -> None:
    trainer = pj.gradient_trainer(lambda p, x, key: (x, {}), optax.sgd(0.1), trains=("a", "b"), publishes=("a",))
    models = {"a": pj.Model(np.zeros(3), infer=False), "b": pj.Model(np.zeros(3))}
    with pytest.raises(InvalidValueError, match="model 'a' infer is False, expected True"):
        fed_system(pj.Schedule(trainer, data="x", batch_size=1), models=models)
