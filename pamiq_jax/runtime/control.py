"""The mutable cell that the threads and their owner meet at: the system's phase and who has acknowledged it."""

from __future__ import annotations

import functools
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future

from pamiq_jax.errors import InvalidTransitionError, InvalidValueError, PauseTimeoutError, WorkerError
from pamiq_jax.lifecycle import Event, Phase, SystemEvent, SystemPhase, allowed_events, transition
from pamiq_jax.runtime.clock import Clock, real_seconds
from pamiq_jax.runtime.events import OnTransition, Transition
from pamiq_jax.runtime.failures import worker_error
from pamiq_jax.runtime.heartbeat import ANSWERING, ON_PAUSED, ON_RESUMED, Heartbeats

STARTING = frozenset({SystemPhase.NEW, SystemPhase.COMPILING, SystemPhase.RESTORING, SystemPhase.READY})
ENDING = frozenset({SystemPhase.STOPPING, SystemPhase.STOPPED, SystemPhase.FAILED})
STANDING = frozenset({SystemPhase.PAUSED, SystemPhase.STOPPED, SystemPhase.FAILED})
"""Phases in which the system's clock stands still."""
ENDED = frozenset({SystemPhase.STOPPED, SystemPhase.FAILED})
ASKING = frozenset({SystemPhase.PAUSING, SystemPhase.RESUMING, SystemPhase.STOPPING})
"""Phases that last until every worker has answered."""


class Control:
    """The phase of a launched system. Workers sleep here; nobody polls.

    A pause or a resume is a request with a number, its epoch. A worker acknowledges an epoch between two
    ticks, after its hook has returned; the request is done when every living worker has acknowledged
    that very epoch. So an old acknowledgement can never answer a new request.

    Args:
        clock: stands still while the system is paused.
        workers: the names of the threads that have to acknowledge.
        subscribers: told of each transition.

    Example:
        >>> from pamiq_jax.runtime.clock import RealClock
        >>> control = Control(RealClock(), workers=())
        >>> control.send(SystemEvent.COMPILE), control.phase
        (True, <SystemPhase.COMPILING: 'compiling'>)
    """

    def __init__(self, clock: Clock, workers: tuple[str, ...], subscribers: tuple[OnTransition, ...] = ()) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)  # for the owner
        self._published = threading.Condition(self._lock)  # for an owner who waits for more than a phase or an error
        self._sleepers = {worker: threading.Condition(self._lock) for worker in workers}
        self._phase = SystemPhase.NEW
        self._epoch = 0
        self._request = (
            SystemPhase.NEW,
            0,
            real_seconds(clock),
        )  # phase, epoch, since when: read as one, without the lock
        self._acknowledged = dict.fromkeys(workers, 0)
        self._is_paused = dict.fromkeys(workers, False)
        self._nudged: set[str] = set()
        self._calls: dict[str, deque[Callable[[], None]]] = {worker: deque() for worker in workers}
        self._time_stands = False
        self._errors: list[WorkerError] = []
        self._subscribers = subscribers
        self._untold: dict[int, list[Transition]] = {}  # by the thread that made them
        self._sequence = 0
        self._raised = 0
        self.wakeups: Counter[str] = Counter()
        self.heartbeats = Heartbeats(clock, workers)

    @property
    def phase(self) -> SystemPhase:
        """The system's phase now. Called from any thread."""
        return self._phase

    @property
    def errors(self) -> tuple[WorkerError, ...]:
        """All that went wrong in the workers so far. Called from any thread."""
        return tuple(self._errors)

    @property
    def unanswered(self) -> Mapping[str, float]:
        """The workers that have not answered the command under way, with when it came, in `real_seconds`.

        Called from any thread; takes no lock.
        """
        phase, epoch, since = self._request
        if phase not in ASKING:
            return {}
        answers = tuple(self._acknowledged.items())
        return {worker: since for worker, answer in answers if phase is SystemPhase.STOPPING or answer != epoch}

    def send(self, event: SystemEvent) -> bool:
        """Make a transition, and wake whom it concerns; return False if the system is ending already.

        Raises:
            InvalidTransitionError: the event is not possible in the present phase.
        """
        with self._lock:
            if self._phase in ENDING and event not in (SystemEvent.ALL_STOPPED, SystemEvent.FAIL):
                return False
            self._move(event)
        self._tell()
        return True

    def _move(self, event: SystemEvent) -> None:
        before, self._phase = self._phase, transition(self._phase, event)
        self._note("system", before, event, self._phase)
        if event in (SystemEvent.PAUSE, SystemEvent.RESUME):
            self._epoch += 1
        self._request = (self._phase, self._epoch, real_seconds(self._clock))
        stands_still = self._phase in STANDING or (self._phase is SystemPhase.STOPPING and self._time_stands)
        if stands_still and not self._time_stands:
            self._clock.pause()
        elif self._time_stands and not stands_still:
            self._clock.resume()
        self._time_stands = stands_still
        if self._phase in ASKING:
            self.heartbeats.alarm.ring()
        self._wake_all()

    def _note(self, machine: str, before: Phase, event: Event, after: Phase) -> None:
        made = Transition(self._sequence, self._clock.now(), machine, before, event, after)
        self._untold.setdefault(threading.get_ident(), []).append(made)
        self._sequence += 1

    def _tell(self) -> None:
        """Tell the subscribers, without the lock, what this thread has made happen."""
        with self._lock:
            transitions = self._untold.pop(threading.get_ident(), [])
        for transition_ in transitions:
            for subscriber in self._subscribers:
                try:
                    subscriber(transition_)
                except Exception as error:  # it must not stop the thread it looks on at; it is told nothing more
                    self._unsubscribe(subscriber)
                    self.report_error(
                        worker_error(f"on_transition {getattr(subscriber, '__name__', subscriber)}", error)
                    )

    def subscribe(self, subscriber: OnTransition) -> Callable[[], None]:
        """Tell a function of each transition from here on; return what ends that. Called from any thread."""
        with self._lock:
            self._subscribers = (*self._subscribers, subscriber)
        return functools.partial(self._unsubscribe, subscriber)

    def _unsubscribe(self, subscriber: OnTransition) -> None:
        with self._lock:
            self._subscribers = tuple(other for other in self._subscribers if other is not subscriber)

    def transition(self, machine: str, before: Phase, event: Event, after: Phase) -> None:
        """Tell of a transition of another machine. Called from the thread that made it."""
        if not self._subscribers:
            return
        with self._lock:
            self._note(machine, before, event, after)
        self._tell()

    def _wake_owners(self) -> None:
        self._changed.notify_all()
        self._published.notify_all()

    def _wake_all(self) -> None:
        self._wake_owners()
        for sleeper in self._sleepers.values():
            sleeper.notify_all()

    # What the workers call.

    def checkpoint(
        self, worker: str, on_paused: Callable[[], None] | None = None, on_resumed: Callable[[], None] | None = None
    ) -> bool:
        """Return True to go on with the next tick, False to end. Sleeps while the system is paused.

        Args:
            worker: the calling thread's name.
            on_paused: called when this worker stops for a pause, before that is acknowledged.
            on_resumed: called when it is to go on, before that is acknowledged.
        """
        while True:
            self._answer_calls(worker)
            with self._lock:
                phase, epoch = self._phase, self._epoch
                if phase is SystemPhase.RUNNING:
                    return True
                if phase in ENDING:
                    return False
                if self._acknowledged[worker] == epoch:
                    if phase is SystemPhase.RESUMING:
                        return True
                    self._sleep(worker, None)
                    continue
            should_pause = phase is SystemPhase.PAUSING
            if should_pause != self._is_paused[worker]:
                hook = on_paused if should_pause else on_resumed
                if hook is not None:
                    self.heartbeats[worker].enter(ON_PAUSED if should_pause else ON_RESUMED)
                    hook()
                self._is_paused[worker] = should_pause
            self._acknowledge(worker, epoch)

    def _answer_calls(self, worker: str) -> None:
        while self._calls[worker]:
            self.heartbeats[worker].enter(ANSWERING)
            self._calls[worker].popleft()()

    def _acknowledge(self, worker: str, epoch: int) -> None:
        with self._lock:
            self._acknowledged[worker] = epoch
            self._complete()
        self._tell()

    def _complete(self) -> None:
        """Finish a request that every living worker has acknowledged, and a stop when none lives."""
        if all(epoch == self._epoch for epoch in self._acknowledged.values()):
            if self._phase is SystemPhase.PAUSING:
                self._move(SystemEvent.ALL_PAUSED)
            elif self._phase is SystemPhase.RESUMING:
                self._move(SystemEvent.ALL_RESUMED)
        if self._phase is SystemPhase.STOPPING and not self._acknowledged:
            self._move(SystemEvent.ALL_STOPPED)

    def sleep(self, worker: str, seconds: float | None) -> None:
        """Return when a nudge or a command came, or the time is over.

        Args:
            worker: the calling thread's name.
            seconds: at most so long, on the system's clock; None waits for a nudge or a command only.
        """
        deadline = None if seconds is None else time.monotonic() + seconds / self._clock.scale
        with self._lock:
            while self._may_sleep(worker) and self._phase in (SystemPhase.RUNNING, SystemPhase.RESUMING):
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0:
                    break
                self._sleep(worker, remaining)
            self._nudged.discard(worker)

    def doze(self, worker: str, seconds: float) -> None:
        """Return after some seconds of real time, or when a nudge or a command comes. The worker counts as busy.

        Args:
            worker: the calling thread's name.
            seconds: how many.
        """
        with self._lock:
            if self._may_sleep(worker) and self._phase in (SystemPhase.RUNNING, SystemPhase.RESUMING):
                self._sleepers[worker].wait(seconds)

    def _may_sleep(self, worker: str) -> bool:
        return worker not in self._nudged and not self._calls[worker]

    def _sleep(self, worker: str, seconds: float | None) -> None:
        if not self._calls[worker]:
            self.heartbeats[worker].rest()
            self._sleepers[worker].wait(seconds)
            self.wakeups[worker] += 1

    def nudge(self, worker: str) -> None:
        """Wake a worker, or let its next sleep end at once. Called from any thread."""
        with self._lock:
            self._nudge(worker)

    def _nudge(self, worker: str) -> None:
        self._nudged.add(worker)
        if worker in self._sleepers:
            self._sleepers[worker].notify_all()

    def report_error(self, error: WorkerError) -> None:
        """Keep an error for whoever waits for the system. The system goes on. Called from the workers."""
        with self._lock:
            self._errors.append(error)
            self._wake_owners()

    def is_last(self, worker: str, kind: str) -> bool:
        """Return whether no other living worker's name starts with `kind`."""
        with self._lock:
            return not any(other.startswith(kind) for other in self._acknowledged if other != worker)

    def notify(self) -> None:
        """Have whoever waits for a publication look again. Called from the training thread."""
        with self._lock:
            self._published.notify_all()

    def leave(self, worker: str, *, is_fatal: bool = False) -> None:
        """Say that a worker's thread ends; from now on nobody waits for it.

        Args:
            worker: the calling thread's name.
            is_fatal: whether the system fails with it.
        """
        self.heartbeats.detach(worker)
        with self._lock:
            self._acknowledged.pop(worker, None)
            if is_fatal and self._phase not in ENDED:
                self._move(SystemEvent.FAIL)
            self._complete()
            self._wake_owners()
        self._tell()

    # What the owner calls.

    def request(self, event: SystemEvent, target: SystemPhase, timeout: float) -> None:
        """Send PAUSE or RESUME and wait until all workers have acknowledged it.

        Args:
            event: `PAUSE` or `RESUME`.
            target: `PAUSED` or `RUNNING`; nothing is sent if it is the phase already.
            timeout: seconds.

        Raises:
            InvalidTransitionError: not possible in the present phase, or the system ended before it was done.
            PauseTimeoutError: naming the workers that did not acknowledge.
        """
        pending = {SystemEvent.PAUSE: SystemPhase.PAUSING, SystemEvent.RESUME: SystemPhase.RESUMING}[event]
        with self._lock:
            if self._phase is target:
                return
            self._refuse_if_ending(event)
            if self._phase is not pending:
                self._move(event)
                self._complete()
            epoch = self._epoch
        self._tell()
        with self._lock:
            if not self._changed.wait_for(lambda: self._phase is not pending or self._epoch != epoch, timeout):
                late = [worker for worker, acknowledged in self._acknowledged.items() if acknowledged != epoch]
                raise PauseTimeoutError(
                    f"{', '.join(late)} did not acknowledge {event} within {timeout} seconds: "
                    "a tick takes longer (see run.status). Shorten steps_per_chunk, or wait longer: the request stays"
                )
            self._refuse_if_ending(event)

    def _refuse_if_ending(self, event: SystemEvent) -> None:
        if self._phase in ENDING:
            cause = self._errors[-1] if self._errors else None
            raise InvalidTransitionError(self._phase, event, allowed_events(self._phase), because=cause) from cause

    def post(self, worker: str, function: Callable[[], None]) -> bool:
        """Have a worker call what must not raise between two ticks, also while paused; return whether it lives."""
        with self._lock:
            if worker not in self._acknowledged:
                return False
            self._calls[worker].append(function)
            self._nudge(worker)
        return True

    def call[R](self, worker: str, function: Callable[[], R], timeout: float) -> R:
        """Have a worker call a function between two ticks, also while it is paused, and return what it returned.

        Args:
            worker: the thread's name.
            function: what it raises is raised here.
            timeout: seconds.

        Raises:
            InvalidValueError: the worker has ended.
            TimeoutError: the worker did not come to it.
        """
        future: Future[R] = Future()

        def answer() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except Exception as error:
                    future.set_exception(error)

        if not self.post(worker, answer):
            remedy = f"{worker} answers no more; ask and change while the system runs or is paused"
            raise InvalidValueError("run", str(self._phase), "a run that has not ended", remedy)
        try:
            return future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise TimeoutError(
                f"{worker} did not come to it within {timeout} seconds; the system is {self._phase}"
            ) from None

    def wait(self, seconds: float | None, until: Callable[[], bool], *, published: bool = False) -> bool:
        """Sleep until `until()` holds or an error is new; return whether `until()` holds.

        Args:
            seconds: at most so long; None for no limit.
            until: asked whenever a phase has changed.
            published: ask it after each publication too.

        Raises:
            WorkerError: the oldest error that has not been raised yet, with its cause.
        """
        with self._lock:
            changed = self._published if published else self._changed
            changed.wait_for(lambda: until() or self._raised < len(self._errors), seconds)
            if self._raised < len(self._errors):
                error = self._errors[self._raised]
                self._raised += 1
                raise error from error.__cause__
            return until()
