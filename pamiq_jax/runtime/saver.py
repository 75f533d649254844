"""Saves a running system without stopping it: a cut of references, written by a thread of its own.

The training thread begins a save between two chunks by handing over its state, which is immutable: with saving, nothing
of a trainer's state is donated. Each inference thread hands in its own between two ticks. Until the buffers are
copied, which the saver's thread does, no record is added to them, for adding writes in place; training goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax.checkpoint import Retention, StateInfo, StateStore
from pamiq_jax.conditions import Condition, Decision, Progress, Wake
from pamiq_jax.data import Collector, CollectorCounts
from pamiq_jax.data.pending import PendingRecords
from pamiq_jax.runtime.failures import describe_error
from pamiq_jax.runtime.heartbeat import SAVING, Heartbeats, Pulse
from pamiq_jax.runtime.rows import floats
from pamiq_jax.runtime.save_status import SaveStatus
from pamiq_jax.runtime.saved import Cut, collected, stored_value
from pamiq_jax.runtime.state import ActorState
from pamiq_jax.types import Metrics

SAVER = "pamiq-saver"
_HAND_IN_SECONDS = 5.0
_LOGGER = logging.getLogger("pamiq_jax")


class Feed(NamedTuple):
    """Where the records of a buffer come from.

    Attributes:
        collector: they wait here.
        feeders: the interactions that bring them.
    """

    collector: Collector[Any]
    feeders: tuple[str, ...]


class _Save:
    """One save under way: what has been handed in, by whom it will be, and who is told in the end."""

    def __init__(
        self,
        cut: Cut,
        metrics: Mapping[str, Metrics],
        feeds: Mapping[str, Feed],
        expected: Mapping[str, ActorState],
        answers: list[Future[StateInfo]],
    ) -> None:
        self.cut, self.metrics, self.feeds = cut, metrics, feeds
        self.expected, self.answers = dict(expected), answers
        self.actors: dict[str, tuple[ActorState, dict[str, Any]]] = {}
        self.waiting: dict[str, tuple[PendingRecords[Any], CollectorCounts]] = {}
        self.problem: Exception | None = None

    @property
    def late(self) -> list[str]:
        """The interactions that have not handed in yet."""
        return sorted(set(self.expected) - set(self.actors))

    def take_waiting(self) -> None:
        """Take what waits for the buffers that nobody feeds any more who has not handed in.

        So the records of a buffer that one interaction feeds are of the very moment that it goes on from.
        """
        late = set(self.late)
        done = {name: feed.collector for name, feed in self.feeds.items() if not late & {*feed.feeders}}
        new = {name: collector for name, collector in done.items() if name not in self.waiting}
        self.waiting |= collected(new)
        for collector in new.values():
            collector.release()

    def hold_for_the_late(self, interaction: str) -> None:
        """Hold what an interaction brings from here on for buffers whose other feeders have not handed in yet."""
        for name, feed in self.feeds.items():
            if interaction in feed.feeders and name not in self.waiting:
                feed.collector.hold(interaction)


class Saver:
    """The thread that writes states, and the one save that may be under way.

    Args:
        store: where to.
        keep: which states stay.
        policy: when to save by itself; None saves only when asked.
        on_error: told of a save that failed; training goes on.
        on_free: called when records may be added to buffers again, and when the next save may begin.
        on_end: called by the thread when it ends.
        heartbeats: where the thread says that it saves, for who watches over it; None for nobody.
        is_hurried: set by `hurry` and `close`, for the store's file operations.
        wall_clock: seconds since 1970.
    """

    def __init__(
        self,
        store: StateStore,
        *,
        keep: Retention,
        policy: Condition | None,
        on_error: Callable[[Exception], None],
        on_free: Callable[[], None],
        on_end: Callable[[], None] = lambda: None,
        heartbeats: Heartbeats | None = None,
        is_hurried: threading.Event | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._is_hurried = threading.Event() if is_hurried is None else is_hurried
        self.store, self.status = store, SaveStatus()
        self._keep, self._policy, self._on_error, self._on_free = keep, policy, on_error, on_free
        self._on_end, self._heartbeats, self._wall_clock = on_end, heartbeats, wall_clock
        self._changed = threading.Condition()
        self._save: _Save | None = None
        self._asked: list[Future[StateInfo]] = []  # by callers, to be answered by the next save that begins
        self._last = Progress()
        self._is_frozen = self._is_closed = False
        self._thread = threading.Thread(target=self._work, name=SAVER, daemon=True)
        self._thread.start()

    # Called from any thread.

    def ask(self) -> Future[StateInfo]:
        """Have the next moment saved, and return what will be known of it."""
        future: Future[StateInfo] = Future()
        with self._changed:
            self._asked.append(future)
        return future

    def hurry(self) -> None:
        """Take no rest any more: the process is about to end."""
        self._is_hurried.set()

    def close(self, timeout: float) -> bool:
        """Write what is under way, end the thread, and return whether it has ended in time.

        Args:
            timeout: seconds.
        """
        self.hurry()
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(timeout)
        with self._changed:
            asked, self._asked = self._asked, []
        for future in asked:
            future.set_exception(RuntimeError("the system has ended; nothing was saved"))
        return not self._thread.is_alive()

    # Called from the training thread.

    @property
    def is_writing(self) -> bool:
        """Whether a save is under way."""
        return self._save is not None

    @property
    def is_frozen(self) -> bool:
        """Whether no record may be added to a buffer, and no priority be changed, for now."""
        return self._is_frozen

    def resume_from(self, progress: Progress) -> None:
        """Count the policy's time and steps from here on: a state was restored, or the system has become ready."""
        self._last = progress

    def wake(self, get_progress: Callable[[], Progress]) -> Wake:
        """Return what must happen before the policy has to be asked again."""
        decision = self._asked_policy(get_progress)
        return Wake() if decision is None else decision.wake

    def is_due(self, get_progress: Callable[[], Progress]) -> bool:
        """Return whether a save should begin now: one was asked for, or the policy says so and none is under way."""
        is_free = self._save is None
        if self._asked:
            return is_free
        decision = self._asked_policy(get_progress)
        if decision is None or not decision.go:
            return False
        if not is_free:
            self._settle(get_progress())
            self.status = self.status._replace(skipped=self.status.skipped + 1)
        return is_free

    def _asked_policy(self, get_progress: Callable[[], Progress]) -> Decision | None:
        """Return what the policy says; None if there is none any more, and then the progress is not even gathered."""
        if self._policy is None:
            return None
        try:
            return self._policy(get_progress(), self._last)
        except Exception as error:  # a user's condition: it is told and not asked again; training goes on
            self._drop_policy(error)
            return None

    def _settle(self, progress: Progress) -> None:
        if self._policy is not None:
            try:
                self._last = self._policy.settle(progress, self._last)
            except Exception as error:
                self._drop_policy(error)

    def _drop_policy(self, error: Exception) -> None:
        self._policy = None
        error.add_note("in the policy `save`, which is not asked any more; `run.save()` saves")
        self._on_error(error)

    def begin(
        self,
        cut: Cut,
        progress: Progress,
        metrics: Mapping[str, Metrics],
        feeds: Mapping[str, Feed],
        interactions: Mapping[str, ActorState],
    ) -> None:
        """Begin a save with what the training thread has; the interactions named hand in theirs.

        Args:
            cut: of the training side, with the last known states of all interactions, and with the worlds of those
                that have not begun.
            progress: what the policy counts from.
            metrics: the newest of each trainer.
            feeds: by buffer; what waits in their collectors belongs to the state.
            interactions: the last known states of those that will hand in newer ones.
        """
        with self._changed:
            asked, self._asked = self._asked, []
            save = _Save(cut, metrics, feeds, interactions, asked)
            save.take_waiting()
            self._save, self._is_frozen = save, True
            self._changed.notify_all()
        self._settle(progress)

    def blocked(self, seconds: float) -> None:
        """Note how long the training thread was busy with beginning the save."""
        self.status = self.status._replace(blocked_ms=1000 * seconds)

    # Called from the inference threads.

    def hand_in(self, interaction: str, get: Callable[[], tuple[ActorState, dict[str, Any]]]) -> None:
        """Add an interaction's part to the save under way, between two of its ticks.

        What `get` raises, for example in an environment's `save_state`, makes the save fail and nothing else. What
        comes too late is left out: the records that waited have been noted without its last ones.
        """
        save = self._save
        if save is None or interaction in save.actors:
            return
        problem = None
        try:
            part = get()
        except Exception as error:
            error.add_note(f"while the state of interaction {interaction!r} was taken")
            part, problem = (save.expected[interaction], {}), error
        with self._changed:
            if interaction in save.actors:
                return  # it has been waited for too long
            save.actors[interaction], save.problem = part, save.problem or problem
            save.take_waiting()
            save.hold_for_the_late(interaction)
            self._changed.notify_all()

    # The saver's own thread.

    def _work(self) -> None:
        try:
            self._write_all(None if self._heartbeats is None else self._heartbeats.attach(SAVER))
        finally:
            self._on_end()
            if self._heartbeats is not None:
                self._heartbeats.detach(SAVER)

    def _write_all(self, pulse: Pulse | None) -> None:
        while (save := self._next()) is not None:
            if pulse is not None:
                pulse.enter(SAVING)
            started = time.monotonic()
            error, info = None, None
            try:
                info = self._write(save)
            except Exception as raised:  # a full disk must stop nobody: it is told, and the last state stays
                error = raised
            finally:
                self._thaw()
            self._note(save, info, error, time.monotonic() - started)
            if error is None:
                self._prune()
            with self._changed:
                self._save = None
            if pulse is not None:
                pulse.rest()
            for future in save.answers:
                future.set_result(info) if info is not None else future.set_exception(error)
            self._on_free()

    def _next(self) -> _Save | None:
        """Return the next save with all that belongs to it; what is not handed in in time is taken as last known."""
        with self._changed:
            self._changed.wait_for(lambda: self._save is not None or self._is_closed)
            save = self._save
            if save is None:
                return None
            self._changed.wait_for(lambda: not save.late or self._is_closed, _HAND_IN_SECONDS)
            if save.late:
                _LOGGER.warning("saved without the present state of %s, which did not answer", ", ".join(save.late))
                save.actors |= {name: (save.expected[name], {}) for name in save.late}  # what comes now is too late
                save.take_waiting()
            return save

    def _write(self, save: _Save) -> StateInfo:
        if save.problem is not None:
            raise save.problem
        worlds = {**save.cut.worlds, **{name: world for name, (_, world) in save.actors.items() if world}}
        buffers = {
            name: run._replace(state=jax.tree.map(_host_copy, run.state))
            for name, run in save.cut.learner.buffers.items()
        }
        self._thaw()
        cut = save.cut._replace(
            learner=save.cut.learner._replace(buffers=buffers),
            actors={**save.cut.actors, **{name: actor for name, (actor, _) in save.actors.items()}},
            worlds=worlds,
            waiting=save.waiting,
        )
        return write_cut(self.store, cut, save.metrics, created_at=self._wall_clock())

    def _prune(self) -> None:
        try:
            self.store.prune(self._keep)
        except Exception as error:  # the state is written, and stays; the next one tries again
            _LOGGER.error("old states could not be removed: %s", error)
            self._on_error(error)

    def _thaw(self) -> None:
        if self._is_frozen:
            self._is_frozen = False
            self._on_free()

    def _note(self, save: _Save, info: StateInfo | None, error: Exception | None, seconds: float) -> None:
        status = self.status._replace(write_seconds=seconds)
        if error is None:
            self.status = status._replace(written=status.written + 1, newest=info, error="")
            return
        self.status = status._replace(failed=status.failed + 1, error=describe_error(error))
        _LOGGER.error("a state could not be saved: %s", error)
        if not save.answers:  # who asked is told by the future
            self._on_error(error)


def _host_copy(leaf: Any) -> Any:
    """Return an array of a buffer in memory of its own, since adding records writes into the buffer's."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_host_copy(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
    return np.array(leaf)


def write_cut(store: StateStore, cut: Cut, metrics: Mapping[str, Metrics], *, created_at: float) -> StateInfo:
    """Save a cut, and return what is known of the new state.

    Args:
        store: where to.
        cut: what to save.
        metrics: the newest of each trainer, for the facts.
        created_at: seconds since 1970.
    """
    return store.write(stored_value(cut), facts=_facts(cut, metrics), created_at=created_at)


def _facts(cut: Cut, metrics: Mapping[str, Metrics]) -> dict[str, Any]:
    """Return what a person, or `best`, wants to know of a state without reading it; metrics as "trainer.metric"."""
    return {
        "version": cut.snapshot.version,
        "seconds": round(cut.seconds, 3),
        "steps": {name: run.steps for name, run in cut.learner.trainers.items()},
        "ticks": {name: actor.tick for name, actor in cut.actors.items()},
        "metrics": {
            f"{trainer}.{name}": value for trainer, row in metrics.items() for name, value in floats(row).items()
        },
    }
