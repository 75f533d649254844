"""What each thread is doing, and since when: one immutable value a thread, that anybody reads without a lock."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from pamiq_jax.runtime.clock import Clock, real_seconds

type Kind = Literal["sleeping", "compiling", "training", "publishing", "environment", "acting", "hook", "saving"]
"""What kind of thing a thread does; each but "sleeping" has its limit in `Deadlines`."""


class Activity(NamedTuple):
    """What a thread does.

    Attributes:
        kind: decides how long it may take.
        text: for people.
    """

    kind: Kind
    text: str


class Heartbeat(NamedTuple):
    """What a thread is doing, and since when.

    Attributes:
        activity: what.
        since: `real_seconds` of the system's clock.
    """

    activity: Activity
    since: float


SLEEPING = Activity("sleeping", "sleeping")
COMPILING = Activity("compiling", "compiling")
SCHEDULING = Activity("training", "scheduling")
RESET = Activity("environment", "environment.reset")
OBSERVE = Activity("environment", "environment.observe")
AFFECT = Activity("environment", "environment.affect")
CLOSE = Activity("environment", "environment.close")
ACT = Activity("acting", "agent.act")
ON_FEEDBACK = Activity("acting", "agent.on_feedback")
ON_INTERACTION = Activity("hook", "on_interaction")
ON_PAUSED = Activity("hook", "on_paused")
ON_RESUMED = Activity("hook", "on_resumed")
SAVING = Activity("saving", "saving")
ANSWERING = Activity("hook", "a call from another thread")


class Alarm:
    """Wakes who watches the threads, but only if it sleeps until somebody becomes busy.

    Attributes:
        is_off: set by the watcher before it sleeps without a limit. While it is not, `ring` is never called.
        rung: what the watcher sleeps on.
    """

    def __init__(self) -> None:
        self.is_off = False
        self.rung = threading.Event()

    def ring(self) -> None:
        """Wake the watcher. Called from any thread, whatever locks it holds."""
        self.is_off = False
        self.rung.set()


class Pulse:
    """One thread's heartbeat, written by that thread alone.

    Args:
        now: real seconds.
        alarm: rung by the first activity after the watcher went to sleep.

    Attributes:
        beat: the newest heartbeat.
        ident: of the thread, once it has said so; for its stack.

    Example:
        >>> from pamiq_jax.runtime.clock import VirtualClock
        >>> clock = VirtualClock()
        >>> pulse = Pulse(clock.now, Alarm())
        >>> clock.advance(3.0)
        >>> pulse.enter(OBSERVE)
        >>> pulse.beat
        Heartbeat(activity=Activity(kind='environment', text='environment.observe'), since=3.0)
    """

    def __init__(self, now: Callable[[], float], alarm: Alarm) -> None:
        self._now, self._alarm = now, alarm
        self.beat = Heartbeat(SLEEPING, now())
        self.ident: int | None = None

    def enter(self, activity: Activity) -> None:
        """Note that the thread does this from now on."""
        self.beat = Heartbeat(activity, self._now())
        if self._alarm.is_off:  # read after the beat is written: the watcher sets it, then reads the beats again
            self._alarm.ring()

    def rest(self) -> None:
        """Note that the thread sleeps, or waits for something to do: as long as it likes."""
        self.beat = Heartbeat(SLEEPING, self._now())


class Heartbeats:
    """The pulses of a system's threads, by their names.

    Args:
        clock: the system's.
        threads: names known from the start.
    """

    def __init__(self, clock: Clock, threads: Iterable[str]) -> None:
        self._now = functools.partial(real_seconds, clock)
        self.alarm = Alarm()
        self._pulses = {thread: Pulse(self._now, self.alarm) for thread in threads}

    def __getitem__(self, thread: str) -> Pulse:
        """Return a thread's pulse."""
        return self._pulses[thread]

    @property
    def pulses(self) -> tuple[tuple[str, Pulse], ...]:
        """All pulses with the names of their threads. Called from any thread."""
        return tuple(self._pulses.items())

    def attach(self, thread: str) -> Pulse:
        """Return the pulse of the calling thread.

        Args:
            thread: its name; it may be a new one.
        """
        pulse = self._pulses.setdefault(thread, Pulse(self._now, self.alarm))
        pulse.ident = threading.get_ident()
        return pulse

    def detach(self, thread: str) -> None:
        """Forget a thread that ends."""
        self._pulses.pop(thread, None)
