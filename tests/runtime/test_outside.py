"""A hook that would wait for its own thread is told so at once; what needs no answer of the system is allowed."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import pamiq_jax as pj
from pamiq_jax.errors import OwnThreadError, WorkerError
from pamiq_jax.lifecycle import SystemPhase
from tests.runtime.fakes import PATIENCE, fed_system, learning_system, python_trainer

COMMANDS = ("run.pause", "run.resume", "run.stop", "run.save", "trainer.hyperparameters", "trainer.set")


class Hook:
    """Gives each command of a run on the thread that it is first called on, and keeps what came of it."""

    def __init__(self) -> None:
        self.run: list[pj.Run] = []
        self.is_given = threading.Event()
        self.done = threading.Event()
        self.outcomes: dict[str, str] = {}
        self.thread = ""

    def give(self, run: pj.Run) -> None:
        self.run.append(run)
        self.is_given.set()

    def __call__(self, report: Any = None) -> None:
        if self.done.is_set():
            return
        assert self.is_given.wait(PATIENCE)
        (run,), self.thread = self.run, threading.current_thread().name
        trainer = run.trainers["fit"]
        commands = (run.pause, run.resume, run.stop, run.save, trainer.hyperparameters, trainer.set)
        for name, command in zip(COMMANDS, commands, strict=True):
            try:
                command(timeout=PATIENCE)
            except OwnThreadError as error:
                self.outcomes[name] = str(error)
        assert run.status.phase is SystemPhase.RUNNING
        assert run.trainers["fit"].name == "fit"
        self.done.set()


def stepping(hook: Hook) -> tuple[pj.System, dict[str, Any]]:
    return fed_system(
        pj.Schedule(python_trainer(lambda number: hook()), data="x", batch_size=1, when=pj.min_new(1))
    ), {}


def acting(hook: Hook) -> tuple[pj.System, dict[str, Any]]:
    return learning_system(), {"on_interaction": hook}


@pytest.mark.parametrize(("build", "thread"), [(stepping, "pamiq-training"), (acting, "pamiq-inference")])
def test_commands_of_the_systems_own_threads_are_refused_at_once(build: Any, thread: str) -> None:
    hook = Hook()
    system, options = build(hook)
    with pj.launch(system, **options) as run:
        hook.give(run)
        if "x" in system.buffers:
            run.collect("x", 0.0)
        assert hook.done.wait(PATIENCE)
        run.pause()
        assert run.status.errors == ()
    assert hook.thread == thread
    assert set(hook.outcomes) == set(COMMANDS)
    assert hook.outcomes["run.pause"].startswith(f"run.pause was called on '{thread}', one of the system's own threads")
    assert "expected another one: set an event" in hook.outcomes["run.stop"]
    assert hook.outcomes["trainer.set"].startswith("run.trainers['fit'].set was called on")


def test_a_subscriber_on_the_training_thread_is_refused_and_the_system_goes_on() -> None:
    runs: list[pj.Run] = []
    reached = threading.Event()

    def pausing(transition: pj.Transition) -> None:
        if runs and threading.current_thread().name == "pamiq-training":
            reached.set()
            runs[0].pause()

    with pj.launch(learning_system(), on_transition=pausing) as run:
        runs.append(run)
        assert reached.wait(PATIENCE)
        with pytest.raises(WorkerError, match=r"on_transition pausing.*OwnThreadError: run\.pause was called on"):
            run.wait(PATIENCE)
        run.wait_for_version(run.snapshot.version + 1, PATIENCE)


def test_the_thread_of_metrics_may_pause_and_not_stop() -> None:
    runs: list[pj.Run] = []
    is_given, done, phases = threading.Event(), threading.Event(), list[SystemPhase]()

    def on_metrics(row: Any) -> None:
        if done.is_set():
            return
        assert is_given.wait(PATIENCE)
        runs[0].pause(PATIENCE)
        phases.append(runs[0].status.phase)
        with pytest.raises(OwnThreadError, match=r"run\.stop was called on 'pamiq-metrics'"):
            runs[0].stop()
        done.set()

    with pj.launch(learning_system(), on_metrics=on_metrics) as run:
        runs.append(run)
        is_given.set()
        assert done.wait(PATIENCE)
    assert phases == [SystemPhase.PAUSED]
