from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import pamiq_jax as pj
from pamiq_jax.errors import InvalidTransitionError, PauseTimeoutError, WorkerError
from pamiq_jax.lifecycle import SystemEvent, SystemPhase
from pamiq_jax.runtime.clock import RealClock
from pamiq_jax.runtime.control import Control
from pamiq_jax.runtime.failures import worker_error
from tests.runtime.fakes import PATIENCE

STARTING = (SystemEvent.COMPILE, SystemEvent.COMPILED, SystemEvent.RESTORED, SystemEvent.START)


class StoppingClock(pj.VirtualClock):
    """A virtual clock that knows whether it was stopped."""

    is_paused = False

    def pause(self) -> None:
        assert not self.is_paused
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False


def running(*workers: str) -> Control:
    control = Control(StoppingClock(), workers)
    for event in STARTING:
        assert control.send(event)
    return control


def pause(control: Control, timeout: float = PATIENCE) -> None:
    control.request(SystemEvent.PAUSE, SystemPhase.PAUSED, timeout)


def resume(control: Control, timeout: float = PATIENCE) -> None:
    control.request(SystemEvent.RESUME, SystemPhase.RUNNING, timeout)


class Crew:
    """Workers that do nothing but go from checkpoint to checkpoint, each in its thread; they are joined in the end."""

    def __init__(self, control: Control, **hooks: tuple[Callable[[], None] | None, Callable[[], None] | None]) -> None:
        self.control = control
        self.ticks = dict.fromkeys(hooks, 0)
        self.ticked = threading.Condition()
        self._threads = [threading.Thread(target=self._work, args=(name, *pair)) for name, pair in hooks.items()]

    def __enter__(self) -> Crew:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.control.send(SystemEvent.STOP)
        for thread in self._threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in self._threads)

    def _work(self, worker: str, on_paused: Any, on_resumed: Any) -> None:
        try:
            while self.control.checkpoint(worker, on_paused, on_resumed):
                with self.ticked:
                    self.ticks[worker] += 1
                    self.ticked.notify_all()
                self.control.sleep(worker, None)
        except Exception as error:
            self.control.report_error(worker_error(worker, error))
        finally:
            self.control.leave(worker)

    def wait_for_a_tick(self, worker: str) -> None:
        with self.ticked:
            before = self.ticks[worker]
            self.control.nudge(worker)
            assert self.ticked.wait_for(lambda: self.ticks[worker] > before, PATIENCE)


class TestPause:
    def test_hooks_return_before_it_is_acknowledged(self) -> None:
        control = running("a", "b")
        phases: list[SystemPhase] = []
        note = lambda: phases.append(control.phase)  # noqa: E731
        with Crew(control, a=(note, note), b=(None, None)):
            pause(control)
            assert phases == [SystemPhase.PAUSING]
            resume(control)
            assert phases == [SystemPhase.PAUSING, SystemPhase.RESUMING]

    def test_nobody_ticks_while_paused(self) -> None:
        control = running("a", "b")
        with Crew(control, a=(None, None), b=(None, None)) as crew:
            for _ in range(20):
                pause(control)
                before = dict(crew.ticks)
                control.nudge("a")
                assert (control.phase, crew.ticks) == (SystemPhase.PAUSED, before)
                resume(control)
                crew.wait_for_a_tick("a")

    def test_the_clock_stands_still(self) -> None:
        control = running("a")
        clock = control._clock
        with Crew(control, a=(None, None)):
            pause(control)
            assert clock.is_paused
            resume(control)
            assert not clock.is_paused

    def test_twice_is_once(self) -> None:
        control = running("a")
        calls: list[str] = []
        with Crew(control, a=(lambda: calls.append("paused"), lambda: calls.append("resumed"))):
            for _ in range(2):
                pause(control)
            for _ in range(2):
                resume(control)
        assert calls == ["paused", "resumed"]

    def test_late_workers_are_named(self) -> None:
        control = running("quick", "slow")
        with Crew(control, quick=(None, None)):
            with pytest.raises(PauseTimeoutError, match=r"slow did not acknowledge pause within 0\.01 seconds"):
                pause(control, 0.01)
            assert control.phase is SystemPhase.PAUSING  # the request stays
            control.leave("slow")
            pause(control)
            assert control.phase is SystemPhase.PAUSED

    def test_a_worker_that_leaves_is_not_waited_for(self) -> None:
        control = running("a", "slow")
        left = threading.Event()

        def leave() -> None:
            control.leave("slow")
            left.set()

        with Crew(control, a=(leave, None)):
            pause(control)
            assert left.is_set()
            assert control.phase is SystemPhase.PAUSED

    def test_raising_hook_ends_its_worker_and_not_the_pause(self) -> None:
        def fail() -> None:
            raise OSError("the robot does not stand still")

        control = running("a", "b")
        with Crew(control, a=(fail, None), b=(None, None)):
            pause(control)
            assert control.phase is SystemPhase.PAUSED
            with pytest.raises(WorkerError, match="worker 'a' failed: OSError: the robot"):
                control.wait(PATIENCE, lambda: False)

    def test_before_it_runs(self) -> None:
        control = Control(RealClock(), ("a",))
        with pytest.raises(InvalidTransitionError, match="pause is not possible in phase new"):
            pause(control)

    def test_after_it_ended(self) -> None:
        control = running()
        control.send(SystemEvent.STOP)
        control.leave("a")
        assert control.phase is SystemPhase.STOPPED
        with pytest.raises(InvalidTransitionError, match="pause is not possible in phase stopped"):
            pause(control)

    @pytest.mark.parametrize("is_fatal", [False, True])
    def test_a_pause_that_the_end_overtakes_is_refused(self, is_fatal: bool) -> None:
        control = running("a", "b")

        def end() -> None:
            control.leave("b", is_fatal=True) if is_fatal else control.send(SystemEvent.STOP)

        with Crew(control, a=(end, None)):
            phase = "failed" if is_fatal else "stopping"
            with pytest.raises(InvalidTransitionError, match=f"pause is not possible in phase {phase}"):
                pause(control)
            control.leave("b")


class TestTakingBack:
    def test_an_old_acknowledgement_answers_no_new_request(self) -> None:
        control = running("a", "slow")
        with pytest.raises(PauseTimeoutError, match="a, slow"):
            pause(control, 0)
        control._acknowledge("a", control._epoch)
        with pytest.raises(PauseTimeoutError, match="a, slow did not acknowledge resume"):
            resume(control, 0)  # takes the pause back
        with pytest.raises(PauseTimeoutError, match="a, slow did not acknowledge pause"):
            pause(control, 0)  # a new pause: neither has answered that one
        control._acknowledge("slow", control._epoch)
        assert control.phase is SystemPhase.PAUSING
        control._acknowledge("a", control._epoch - 2)
        assert control.phase is SystemPhase.PAUSING
        control._acknowledge("a", control._epoch)
        assert control.phase is SystemPhase.PAUSED

    def test_resume_while_pausing(self) -> None:
        control = running("a", "slow")
        calls: list[str] = []
        with Crew(control, a=(lambda: calls.append("paused"), lambda: calls.append("resumed"))) as crew:
            with pytest.raises(PauseTimeoutError, match="slow"):
                pause(control, 0.01)
            with pytest.raises(PauseTimeoutError, match="slow did not acknowledge resume"):
                resume(control, 0.01)
            control._acknowledge("slow", control._epoch)
            resume(control)
            crew.wait_for_a_tick("a")
        assert calls in ([], ["paused", "resumed"])  # the worker may have seen only the second

    def test_pause_while_resuming(self) -> None:
        control = running("a", "slow")
        with Crew(control, a=(None, None)) as crew:
            with pytest.raises(PauseTimeoutError, match="slow"):
                pause(control, 0)
            control._acknowledge("slow", control._epoch)
            pause(control)
            with pytest.raises(PauseTimeoutError, match="slow did not acknowledge resume"):
                resume(control, 0.01)
            crew.wait_for_a_tick("a")  # who has acknowledged goes on
            with pytest.raises(PauseTimeoutError, match="slow did not acknowledge pause"):
                pause(control, 0.01)
            control._acknowledge("slow", control._epoch)
            pause(control)
            before = dict(crew.ticks)
            assert (control.phase, crew.ticks) == (SystemPhase.PAUSED, before)


class TestEnding:
    def test_stop_while_paused(self) -> None:
        control = running("a")
        with Crew(control, a=(None, None)):
            pause(control)
            assert control.send(SystemEvent.STOP)
            assert control.wait(PATIENCE, lambda: control.phase is SystemPhase.STOPPED)

    def test_stop_twice_changes_nothing(self) -> None:
        control = running("a")
        assert control.send(SystemEvent.STOP)
        assert not control.send(SystemEvent.STOP)
        assert control.phase is SystemPhase.STOPPING

    def test_fail_while_paused(self) -> None:
        control = running("a", "b")
        with Crew(control, a=(None, None), b=(None, None)):
            pause(control)
            control.leave("a", is_fatal=True)
            assert control.phase is SystemPhase.FAILED

    def test_commands_that_come_too_late_are_declined(self) -> None:
        control = Control(RealClock(), ("a",))
        control.send(SystemEvent.COMPILE)
        control.send(SystemEvent.STOP)
        assert not control.send(SystemEvent.COMPILED)
        assert not control.checkpoint("a")

    def test_each_error_is_raised_once_and_in_order(self) -> None:
        control = running("a")
        for number in (1, 2):
            control.report_error(worker_error("a", ValueError(number)))
        for number in (1, 2):
            with pytest.raises(WorkerError, match=f"worker 'a' failed: ValueError: {number}") as caught:
                control.wait(0, lambda: True)
            assert isinstance(caught.value.__cause__, ValueError)
        assert control.wait(0, lambda: True)
        assert len(control.errors) == 2


class TestSleep:
    def test_a_nudge_before_the_sleep_ends_it(self) -> None:
        control = running("a")
        control.nudge("a")
        control.sleep("a", None)
        assert control.wakeups["a"] == 0

    def test_time_ends_it(self) -> None:
        control = running("a")
        control.sleep("a", 0)
        control.sleep("a", 0.001)
        assert control.phase is SystemPhase.RUNNING

    def test_no_sleep_while_a_command_waits(self) -> None:
        control = running("a")
        with pytest.raises(PauseTimeoutError, match="a did not acknowledge"):
            pause(control, 0)
        control.sleep("a", None)
        assert control.wakeups["a"] == 0

    def test_who_has_a_call_to_answer_does_not_sleep_nor_keep_the_others_out(self) -> None:
        # The nudge may be used up before the call is answered; to wait for another one would be to wait for ever.
        control = running("worker")
        answered: list[bool] = []
        assert control.post("worker", lambda: answered.append(True))

        def work() -> None:
            control.sleep("worker", None)
            control.sleep("worker", None)
            control.checkpoint("worker")

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        assert answered == [True]


class Driven(RuleBasedStateMachine):
    """Any order of commands and answers, without threads: what is said about the system stays true."""

    WORKERS = ("a", "b")

    def __init__(self) -> None:
        super().__init__()
        self.control = running(*self.WORKERS)
        self.alive = set(self.WORKERS)
        self.answered = dict.fromkeys(self.WORKERS, 0)  # the epoch each has answered itself
        self.is_paused = dict.fromkeys(self.WORKERS, False)

    def command(self, event: SystemEvent, target: SystemPhase) -> None:
        before = self.control._epoch
        pending = {SystemEvent.PAUSE: SystemPhase.PAUSING, SystemEvent.RESUME: SystemPhase.RESUMING}[event]
        is_new = self.control.phase not in (pending, target)
        # Whoever has not answered this very request is late; a new one nobody can have answered.
        late = sorted(self.alive if is_new else {name for name in self.alive if self.answered[name] != before})
        if late and self.control.phase is not target:
            with pytest.raises(PauseTimeoutError, match=f"^{', '.join(late)} did not acknowledge"):
                self.control.request(event, target, 0)
        else:
            self.control.request(event, target, 0)
            assert self.control.phase is target
        assert self.control._epoch - before == int(is_new)

    @rule()
    @precondition(lambda self: self.control.phase in (SystemPhase.RUNNING, SystemPhase.PAUSING, SystemPhase.RESUMING))
    def ask_to_pause(self) -> None:
        self.command(SystemEvent.PAUSE, SystemPhase.PAUSED)

    @rule()
    @precondition(lambda self: self.control.phase in (SystemPhase.PAUSED, SystemPhase.PAUSING, SystemPhase.RESUMING))
    def ask_to_resume(self) -> None:
        self.command(SystemEvent.RESUME, SystemPhase.RUNNING)

    def answer(self, worker: str) -> None:
        phase = self.control.phase
        if worker in self.alive and phase in (SystemPhase.PAUSING, SystemPhase.RESUMING):
            self.control._acknowledge(worker, self.control._epoch)
            self.answered[worker] = self.control._epoch
            self.is_paused[worker] = phase is SystemPhase.PAUSING

    @rule()
    def a_answers(self) -> None:
        self.answer("a")

    @rule()
    def b_answers(self) -> None:
        self.answer("b")

    @rule()
    @precondition(lambda self: "b" in self.alive)
    def b_leaves(self) -> None:
        self.control.leave("b")
        self.alive.discard("b")

    @invariant()
    def paused_means_that_all_have_said_so(self) -> None:
        if self.control.phase is SystemPhase.PAUSED:
            assert all(self.is_paused[worker] for worker in self.alive)
        if self.control.phase is SystemPhase.RUNNING:
            assert not any(self.is_paused[worker] for worker in self.alive)

    @invariant()
    def the_clock_stands_still_only_while_paused(self) -> None:
        assert self.control._clock.is_paused == (self.control.phase is SystemPhase.PAUSED)


Driven.TestCase.settings = settings(max_examples=60, stateful_step_count=25)
TestDriven = Driven.TestCase
