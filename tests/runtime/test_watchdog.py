"""Who is stuck, in what: by hand on a clock that is moved, and in a launched system whose threads are held."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import math
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

import pamiq_jax as pj
from pamiq_jax.errors import InvalidValueError, PauseTimeoutError
from pamiq_jax.lifecycle import SystemEvent, SystemPhase
from pamiq_jax.runtime.control import Control
from pamiq_jax.runtime.heartbeat import COMPILING, OBSERVE, Activity
from pamiq_jax.runtime.interpreter import InterpreterTimer
from pamiq_jax.runtime.watchdog import Watchdog
from tests.runtime.fakes import PATIENCE, HeldWorld, World, fed_system, learning_system, python_trainer
from tests.runtime.resuming import ROOT

NO_LIMIT = dict.fromkeys(("training", "publishing", "environment", "acting", "hook", "pausing"))
SOON = 0.02
CHUNK = Activity("training", "trainer 'vae': training")


class Heard(logging.Handler):
    """Keeps the library's error records."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []
        self._changed = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._changed:
            self.messages.append(record.getMessage())
            self._changed.notify_all()

    def wait_for(self, text: str) -> str:
        """Return the one message that has this text, once it has come. A slow machine may bring others."""
        with self._changed:
            assert self._changed.wait_for(lambda: any(text in message for message in self.messages), PATIENCE)
            (message,) = (message for message in self.messages if text in message)
            return message


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler = Heard()
    logging.getLogger("pamiq_jax").addHandler(handler)
    yield handler
    logging.getLogger("pamiq_jax").removeHandler(handler)


def by_hand(deadlines: pj.Deadlines | None = None, scale: float = 1.0) -> tuple[pj.VirtualClock, Control, Watchdog]:
    """Return a running system of one worker, "w", that is looked at by hand."""
    clock = pj.VirtualClock()
    clock.scale = scale
    control = Control(clock, ("w",))
    for event in (SystemEvent.COMPILE, SystemEvent.COMPILED, SystemEvent.RESTORED, SystemEvent.START):
        control.send(event)
    return clock, control, Watchdog(control, clock, deadlines or pj.Deadlines())


class TestByHand:
    def test_a_thread_is_stuck_from_its_limit_on(self, heard: Heard) -> None:
        clock, control, watchdog = by_hand(pj.Deadlines(training=10.0))
        control.heartbeats["w"].enter(CHUNK)
        clock.advance(9.0)
        assert (watchdog.look(), watchdog.stuck) == (1.0, ())
        clock.advance(1.0)
        assert watchdog.stuck == (pj.Stuck("w", "trainer 'vae': training", 0.0, 10.0, "more than 10 s"),)
        assert heard.messages == []
        assert watchdog.look() is None  # told, nothing more can happen before somebody moves
        assert len(heard.messages) == 1
        assert heard.messages[0].startswith("w is stuck in trainer 'vae': training for 10.0 s (more than 10 s).")

    def test_it_is_told_once_an_episode(self, heard: Heard) -> None:
        clock, control, watchdog = by_hand()
        for _ in range(2):
            control.heartbeats["w"].enter(OBSERVE)
            clock.advance(60.0)
            for _ in range(3):
                watchdog.look()
                clock.advance(100.0)
            control.heartbeats["w"].rest()
            assert (watchdog.look(), watchdog.stuck) == (None, ())
        assert len(heard.messages) == 2

    def test_the_stack_is_that_of_the_thread(self, heard: Heard) -> None:
        clock, control, watchdog = by_hand()

        def innermost_function() -> None:
            control.heartbeats.attach("w").enter(OBSERVE)
            clock.advance(60.0)
            watchdog.look()

        innermost_function()
        assert "in innermost_function" in heard.messages[0]

    def test_who_sleeps_is_never_stuck(self) -> None:
        clock, control, watchdog = by_hand()
        control.heartbeats["w"].enter(OBSERVE)
        control.heartbeats["w"].rest()
        clock.advance(1e9)
        assert (watchdog.look(), watchdog.stuck) == (None, ())

    def test_no_limit(self) -> None:
        clock, control, watchdog = by_hand(pj.Deadlines(compiling=None))
        control.heartbeats["w"].enter(COMPILING)
        clock.advance(1e9)
        assert (watchdog.look(), watchdog.stuck) == (None, ())

    def test_the_next_look_comes_before_anybody_who_becomes_busy_can_be_stuck(self) -> None:
        _, control, watchdog = by_hand(pj.Deadlines(hook=7.0))
        control.heartbeats["w"].enter(COMPILING)
        assert watchdog.look() == 7.0

    def test_limits_are_real_seconds_whatever_the_time_scale(self, heard: Heard) -> None:
        clock, control, watchdog = by_hand(pj.Deadlines(training=50.0, pausing=20.0), scale=200.0)
        control.heartbeats["w"].enter(CHUNK)
        clock.advance(0.4 * 200.0)  # a chunk of 0.4 real seconds
        assert (watchdog.look(), watchdog.stuck, heard.messages) == (20.0, (), [])
        control.send(SystemEvent.STOP)
        clock.advance(19.0 * 200.0)
        assert (watchdog.look(), watchdog.stuck) == (1.0, ())
        clock.advance(200.0)
        assert [stuck.seconds for stuck in watchdog.stuck] == [20.4]

    def test_nobody_is_due_while_it_is_paused(self) -> None:
        clock, control, watchdog = by_hand()
        control.heartbeats.attach("w-policy").enter(OBSERVE)  # of a thread that no pause stops
        clock.advance(59.999)
        pausing = threading.Thread(target=control.request, args=(SystemEvent.PAUSE, SystemPhase.PAUSED, PATIENCE))
        pausing.start()
        working = threading.Thread(target=lambda: (control.checkpoint("w"), control.leave("w")))
        working.start()
        pausing.join(PATIENCE)
        assert control.phase is SystemPhase.PAUSED
        assert watchdog.look() is None
        control.send(SystemEvent.STOP)
        working.join(PATIENCE)
        assert not working.is_alive()

    @pytest.mark.parametrize("command", ["pause", "stop"])
    def test_a_command_must_be_acknowledged_whatever_the_thread_is_in(self, command: str, heard: Heard) -> None:
        clock, control, watchdog = by_hand(pj.Deadlines(environment=None, pausing=5.0))
        control.heartbeats["w"].enter(OBSERVE)
        clock.advance(1000.0)
        assert watchdog.look() is None
        if command == "pause":
            with pytest.raises(PauseTimeoutError):
                control.request(SystemEvent.PAUSE, SystemPhase.PAUSED, 0)
        else:
            control.send(SystemEvent.STOP)
        assert watchdog.look() == 5.0
        clock.advance(5.0)
        watchdog.look()
        assert [str(stuck) for stuck in watchdog.stuck] == [
            "w is stuck in environment.observe for 1005.0 s (a command is not acknowledged for more than 5 s)"
        ]
        assert len(heard.messages) == 1
        control.leave("w")
        assert watchdog.stuck == ()

    @pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
    def test_limits_out_of_range(self, seconds: float) -> None:
        with pytest.raises(InvalidValueError, match=r"Deadlines\(hook\) is .*, expected more than 0; None sets no"):
            pj.Deadlines(hook=seconds)

    def test_limits_that_are_no_numbers(self) -> None:
        wrong: Any = "3"
        with pytest.raises(InvalidValueError, match=r"Deadlines\(training\) is '3', expected more than 0"):
            pj.Deadlines(training=wrong)
        with pytest.raises(InvalidValueError, match=r"Deadlines\(interpreter\) is inf, expected a finite number"):
            pj.Deadlines(interpreter=math.inf)


HOLDS_THE_LOCK = """
import ctypes, sys
import pamiq_jax as pj
from tests.runtime.fakes import World, learning_system

class Holding(World):
    def observe(self):
        if len(self.shown) == 3:
            ctypes.PyDLL(None).usleep(2_000_000)
        return super().observe()

limits = pj.Deadlines(environment=0.2, interpreter=0.5)
with pj.launch(learning_system(Holding(), trainers={}), deadlines=limits) as run:
    run.wait_until_ready(120)
    while run.status.inference.ticks < 10:
        run.wait(0.05)
print("ended", file=sys.stderr)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="it has no usleep")
def test_c_code_that_holds_the_interpreter_is_reported_though_no_thread_can_run() -> None:
    command = [sys.executable, "-c", HOLDS_THE_LOCK]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10 * PATIENCE, check=False)
    assert ended.returncode == 0, ended.stderr
    before, _, after = ended.stderr.partition("Timeout (0:00:00.500000)!")
    assert "in observe" in after.partition("ended")[0]
    assert "no Python code has run for" in after
    assert "ended" not in before


def test_systems_share_the_timer_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand, without the timer itself, which is pytest's here."""
    armed: list[float | None] = []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda limit, file: armed.append(limit))
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: armed.append(None))
    one, other = InterpreterTimer(8.0), InterpreterTimer(4.0)
    one.begin()
    other.begin()
    one.tell()
    other.end()
    one.end()
    assert armed == [8.0, 4.0, 4.0, 8.0, None]
    assert (one.period, other.period) == (2.0, 1.0)


class TestAlarm:
    def test_only_the_first_who_becomes_busy_rings(self) -> None:
        _, control, _ = by_hand()
        pulse, alarm = control.heartbeats["w"], control.heartbeats.alarm
        alarm.is_off = True
        pulse.rest()
        assert not alarm.rung.is_set()
        pulse.enter(OBSERVE)
        assert (alarm.rung.is_set(), alarm.is_off) == (True, False)
        alarm.rung.clear()
        pulse.enter(COMPILING)
        assert not alarm.rung.is_set()


def held_trainer(go: threading.Event) -> pj.System:
    return fed_system(pj.Schedule(python_trainer(lambda number: _wait(go)), data="x", batch_size=1))


def _wait(go: threading.Event) -> None:
    assert go.wait(PATIENCE)


class HeldAgent:
    """A policy that does not answer until it is let go."""

    extras: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, go: threading.Event) -> None:
        self._go = go

    def reset(self, seed: int) -> None:
        assert seed == 0

    def act(self, params: Any, observation: Any) -> Any:
        _wait(self._go)
        return np.float32(0), {}


def held_world(go: threading.Event) -> pj.System:
    world = HeldWorld()
    world.go = go
    return learning_system(world)


def held_policy(go: threading.Event, fallback: Any = None) -> pj.System:
    deadline = None if fallback is None else 0.001
    interaction = pj.Interaction(HeldAgent(go), World(), fallback=fallback, deadline_seconds=deadline)
    return learning_system(interaction=interaction, trainers={})


def held_compiling(go: threading.Event) -> pj.System:
    def act(params: Any, carry: Any, observation: Any, rng_key: Any) -> Any:
        _wait(go)  # while it is traced
        return carry, jnp.float32(0), {}

    return learning_system(interaction=pj.Interaction(pj.Agent(act), World()), trainers={})


def held_deadline_policy(go: threading.Event) -> pj.System:
    return held_policy(go, lambda observation, last_action: last_action)


class Held(NamedTuple):
    build: Callable[[threading.Event], pj.System]
    kind: str
    thread: str
    activity: str
    function: str


HELD = (
    Held(held_world, "environment", "pamiq-inference", "environment.observe", "observe"),
    Held(held_trainer, "training", "pamiq-training", "trainer 'fit': training", "chunk"),
    Held(held_policy, "acting", "pamiq-inference", "agent.act", "act"),
    Held(held_deadline_policy, "acting", "pamiq-inference-policy", "agent.act", "act"),
    Held(held_compiling, "compiling", "pamiq-training", "compiling", "compile_system"),
)


@contextlib.contextmanager
def let_go_of_at_last(go: threading.Event) -> Generator[None]:
    try:
        yield
    finally:
        go.set()


@pytest.mark.parametrize("held", HELD, ids=lambda held: held.build.__name__)
def test_a_thread_that_is_held(held: Held, heard: Heard) -> None:
    build, kind, thread, activity, function = held
    go = threading.Event()
    limits = {**NO_LIMIT, "compiling": None, kind: SOON}
    with pj.launch(build(go), deadlines=pj.Deadlines(**limits)) as run, let_go_of_at_last(go):
        if build is held_trainer:
            run.collect("x", 0.0)
        message = heard.wait_for(f"{thread} is stuck in {activity} for")
        (stuck,) = run.status.stuck
        assert (stuck.thread, stuck.activity, stuck.reason) == (thread, activity, "more than 0.02 s")
        assert f"stuck: {thread} is stuck in {activity} for" in str(run.status)
        assert f", in {function}\n" in message
        go.set()
        run.pause()
        assert [stuck for stuck in run.status.stuck if stuck.thread != "pamiq-inference-policy"] == []
        assert run.status.errors == ()


def test_a_callback_that_is_held(heard: Heard) -> None:
    go = threading.Event()
    deadlines = pj.Deadlines(**{**NO_LIMIT, "hook": SOON})
    with pj.launch(learning_system(trainers={}), deadlines=deadlines, on_interaction=lambda report: _wait(go)) as run:
        heard.wait_for("pamiq-inference is stuck in on_interaction for")
        assert [stuck.activity for stuck in run.status.stuck] == ["on_interaction"]
        go.set()


def test_a_pause_that_is_not_acknowledged(heard: Heard) -> None:
    world = HeldWorld()
    with pj.launch(learning_system(world), deadlines=pj.Deadlines(**{**NO_LIMIT, "pausing": SOON})) as run:
        assert world.is_held.wait(PATIENCE)
        with pytest.raises(PauseTimeoutError, match="pamiq-inference did not acknowledge pause"):
            run.pause(timeout=0.001)
        assert "pamiq-inference is" in heard.wait_for("(a command is not acknowledged for more than 0.02 s)")
        world.go.set()
        run.pause()
        assert run.status.stuck == ()
