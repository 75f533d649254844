"""Threads that are in one thing for too long: said in the status, and logged once with the stack."""

from __future__ import annotations

import logging
import math
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import NamedTuple

from pamiq_jax.runtime.clock import Clock, real_seconds
from pamiq_jax.runtime.control import STANDING, Control
from pamiq_jax.runtime.heartbeat import Heartbeat, Pulse
from pamiq_jax.runtime.interpreter import InterpreterTimer
from pamiq_jax.runtime.limits import Deadlines

_LOGGER = logging.getLogger("pamiq_jax")


class Stuck(NamedTuple):
    """A thread that has been in one thing for too long. It may go on yet.

    Attributes:
        thread: its name.
        activity: what it is in, for example "environment.observe" or "trainer 'vae': training".
        since: when that began, in real seconds; only the difference of two means something.
        seconds: how long that is ago.
        reason: which limit is past.

    Example:
        >>> print(Stuck("pamiq-inference", "environment.observe", 3.0, 75.2, "more than 60 s"))
        pamiq-inference is stuck in environment.observe for 75.2 s (more than 60 s)
    """

    thread: str
    activity: str
    since: float
    seconds: float
    reason: str

    def __str__(self) -> str:
        return f"{self.thread} is stuck in {self.activity} for {self.seconds:.1f} s ({self.reason})"


class _Due(NamedTuple):
    at: float
    reason: str


def _due(beat: Heartbeat, limits: Mapping[str, float], asked: float) -> _Due:
    """Return when a thread counts as stuck. `asked`: since when it owes an answer to a command, else infinity."""
    if beat.activity.kind == "sleeping":
        return _Due(math.inf, "")
    limit, pausing = limits[beat.activity.kind], limits["pausing"]
    if asked + pausing < beat.since + limit:
        return _Due(asked + pausing, f"a command is not acknowledged for more than {pausing:g} s")
    return _Due(beat.since + limit, f"more than {limit:g} s")


class Watchdog:
    """Says which threads are stuck, and logs each once, with its stack, from a thread of its own.

    It does not poll. It sleeps until the first thread can be stuck; while none can be, until one becomes busy. As it
    is not told of each tick, it wakes once more after the last thread has gone to sleep. Only where the interpreter has
    a limit it wakes four times within it, to show that Python code still runs.

    Args:
        control: whose threads, and where they have acknowledged.
        clock: the system's.
        deadlines: the limits.
    """

    def __init__(self, control: Control, clock: Clock, deadlines: Deadlines) -> None:
        self._control, self._clock = control, clock
        self._limits = deadlines.limits
        self._shortest = min(self._limits.values())
        self._told: dict[str, Heartbeat] = {}
        self._timer = None if deadlines.interpreter is None else InterpreterTimer(deadlines.interpreter)
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="pamiq-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self, timeout: float) -> bool:
        """End the thread, and return whether it has ended in time.

        Args:
            timeout: seconds.
        """
        self._is_closed = True
        self._control.heartbeats.alarm.ring()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def stuck(self) -> tuple[Stuck, ...]:
        """Who is stuck as of now. Called from any thread; takes no lock."""
        now = real_seconds(self._clock)
        beats = [(thread, pulse.beat) for thread, pulse in self._pulses]
        found = [(thread, beat, self._due(thread, beat)) for thread, beat in beats]
        return tuple(_stuck(thread, beat, due, now) for thread, beat, due in found if due.at <= now)

    @property
    def _pulses(self) -> tuple[tuple[str, Pulse], ...]:
        return self._control.heartbeats.pulses

    def _due(self, thread: str, beat: Heartbeat) -> _Due:
        return _due(beat, self._limits, self._control.unanswered.get(thread, math.inf))

    def look(self) -> float | None:
        """Log who is newly stuck; return in how many seconds to look again, None if only when somebody is busy.

        Called from the watchdog's thread.
        """
        if self._control.phase in STANDING:  # no deadline comes nearer; to go on is a command, which rings
            return None
        now, first = real_seconds(self._clock), math.inf
        for thread, pulse in self._pulses:
            beat = pulse.beat
            due = self._due(thread, beat)
            if due.at > now:
                first = min(first, due.at)
            elif self._told.get(thread) is not beat:
                self._tell(_stuck(thread, beat, due, now), pulse, beat)
        if math.isinf(first):
            return None
        # Whoever becomes busy in the meantime rings nobody, and is not due before the shortest limit is over.
        return min(first - now, self._shortest, threading.TIMEOUT_MAX)

    def _tell(self, stuck: Stuck, pulse: Pulse, beat: Heartbeat) -> None:
        frame = sys._current_frames().get(-1 if pulse.ident is None else pulse.ident)  # pyright: ignore[reportPrivateUsage]
        stack = "".join(traceback.format_stack(frame)) if frame is not None else "unknown\n"
        del frame
        if pulse.beat is beat:  # else it has gone on, and the stack is another one
            self._told[stuck.thread] = beat
            _LOGGER.error("%s. Its stack, innermost call last:\n%s", stuck, stack)

    def _work(self) -> None:
        if self._timer is None:
            self._watch(None)
            return
        self._timer.begin()
        try:
            self._watch(self._timer)
        finally:
            self._timer.end()

    def _watch(self, timer: InterpreterTimer | None) -> None:
        alarm = self._control.heartbeats.alarm
        while True:
            alarm.is_off = False
            alarm.rung.clear()
            if self._is_closed:
                return
            seconds = self.look()
            if seconds is None:
                alarm.is_off = True
                seconds = self.look()  # who became busy just before has rung nobody
                alarm.is_off = seconds is None
            if timer is not None:
                timer.tell()
                seconds = timer.period if seconds is None else min(seconds, timer.period)
            alarm.rung.wait(seconds)


def _stuck(thread: str, beat: Heartbeat, due: _Due, now: float) -> Stuck:
    return Stuck(thread, beat.activity.text, beat.since, now - beat.since, due.reason)
