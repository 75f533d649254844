"""Where a launched run's states go: the saves of its threads, and what writes them."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pamiq_jax import checkpoint
from pamiq_jax.checkpoint.files import LOCAL_FILES
from pamiq_jax.conditions import Condition, Progress, Wake
from pamiq_jax.runtime.clock import Clock
from pamiq_jax.runtime.heartbeat import Heartbeats
from pamiq_jax.runtime.origin import Origin, begin
from pamiq_jax.runtime.programs import Compiled, Ready
from pamiq_jax.runtime.save_status import SaveStatus
from pamiq_jax.runtime.state import ActorState, Cells, LearnerState
from pamiq_jax.types import Metrics

if TYPE_CHECKING:
    from pamiq_jax.checkpoint import Retention
    from pamiq_jax.checkpoint.block_process import BlockProcess
    from pamiq_jax.runtime.saver import Saver

_LOGGER = logging.getLogger("pamiq_jax")


class SavingOptions(NamedTuple):
    """What a launched run is told about states.

    Attributes:
        origin: where it begins from; None begins anew.
        keep: which states stay; None keeps the newest three.
        policy: when it saves by itself; None only when asked.
    """

    origin: Origin | None
    keep: Retention | None
    policy: Condition | None

    def begin(
        self,
        directory: Path | None,
        on_error: Callable[[Exception], None],
        on_free: Callable[[], None],
        heartbeats: Heartbeats,
    ) -> Saving:
        """Return the run's saves; starts their thread and their process if there is a directory."""
        if directory is None:
            return Saving(None, self.origin)
        from pamiq_jax.runtime.saver import Saver
        from pamiq_jax.runtime.unhurried import GIVE_WAY_SECONDS, unhurried

        is_hurried = threading.Event()
        blocks = block_process(directory, is_hurried)
        saver = Saver(
            checkpoint.StateStore(
                directory,
                unhurried(LOCAL_FILES, is_hurried),
                blocks=blocks,
                give_way=functools.partial(is_hurried.wait, GIVE_WAY_SECONDS),
            ),
            keep=checkpoint.latest_n(3) if self.keep is None else self.keep,
            policy=self.policy,
            on_error=on_error,
            on_free=on_free,
            on_end=(lambda: None) if blocks is None else blocks.close,
            heartbeats=heartbeats,
            is_hurried=is_hurried,
        )
        return Saving(saver, self.origin)


def block_process(directory: Path, is_hurried: threading.Event) -> BlockProcess | None:
    """Return what writes the blocks of a launched run; None has its own thread write them.

    Args:
        directory: of the states.
        is_hurried: no rest is taken once this is set.
    """
    from pamiq_jax.checkpoint.block_process import BlockProcess
    from pamiq_jax.checkpoint.directory import block_places
    from pamiq_jax.runtime.unhurried import REST_SECONDS, unhurried

    return BlockProcess(
        *block_places(directory),
        unhurried(LOCAL_FILES, is_hurried),
        rest_seconds=lambda: 0.0 if is_hurried.is_set() else REST_SECONDS,
    )


class Saving:
    """The saves of a launched run: does nothing where there is no saver.

    Args:
        saver: the thread that writes; None saves nothing.
        origin: where the run begins from; None begins anew.
    """

    def __init__(self, saver: Saver | None, origin: Origin | None) -> None:
        self.saver, self.restored = saver, None
        self._origin = origin

    def begin_run(self, compiled: Compiled, clock: Clock) -> tuple[Ready, LearnerState]:
        """Return the system ready to run, as it was saved or anew. Called on the training thread."""
        begun = begin(compiled, self._origin, clock)
        self.restored, self._clock = begun.restored, clock
        ready, learner = begun.ready, begun.ready.compiled.learner
        if self.saver is not None:
            self.saver.resume_from(self._progress(ready, learner))
        return ready, learner

    def lengths_in_run(self) -> dict[str, int]:
        """Return how many steps a chunk has of each trainer that goes on within a run."""
        return {} if self._origin is None else self._origin.lengths_in_run()

    def hurry(self) -> None:
        """Write as fast as the disk can, from now on, whatever that does to who acts."""
        if self.saver is not None:
            self.saver.hurry()

    def close(self, timeout: float) -> bool:
        """End the saver's thread, and return whether it has ended in time."""
        return self.saver is None or self.saver.close(timeout)

    @property
    def status(self) -> SaveStatus:
        """What has become of the saves so far."""
        return SaveStatus() if self.saver is None else self.saver.status

    @property
    def is_writing(self) -> bool:
        """Whether a save is under way."""
        return self.saver is not None and self.saver.is_writing

    @property
    def is_frozen(self) -> bool:
        """Whether records must wait because the buffers are being saved."""
        return self.saver is not None and self.saver.is_frozen

    def wake(self, ready: Ready, learner: LearnerState) -> Wake:
        """Return when the policy must be asked again."""
        return Wake() if self.saver is None else self.saver.wake(lambda: self._progress(ready, learner))

    def is_due(self, ready: Ready, learner: LearnerState) -> bool:
        """Return whether a save should begin."""
        return self.saver is not None and self.saver.is_due(lambda: self._progress(ready, learner))

    def begin(
        self,
        ready: Ready,
        learner: LearnerState,
        metrics: Mapping[str, Metrics],
        interactions: Mapping[str, ActorState | None],
    ) -> None:
        """Begin a save with the training side as it is now. Called on the training thread.

        Args:
            ready: what the run began from.
            learner: the training side's state.
            metrics: the newest of each trainer.
            interactions: the last known state of each, which hands in its newer one; None if it has not begun yet,
                and so is where the run began from.
        """
        from pamiq_jax.runtime.saved import Cut
        from pamiq_jax.runtime.saver import Feed

        assert self.saver is not None, "somebody found a save due"
        started, now = time.perf_counter(), self._clock.now()
        begun = {name: actor for name, actor in interactions.items() if actor is not None}
        actors = {**ready.compiled.actors, **begun}
        worlds = {name: dict(ready.world(name) or {}) for name in actors if name not in begun}
        cut = Cut(learner, actors, ready.cells.store.latest, {}, worlds, dict.fromkeys(actors, now), now)
        progress = self._progress(ready, learner)
        system = ready.compiled.programs.system
        feeds = {name: Feed(collector, system.feeders(name)) for name, collector in ready.cells.collectors.items()}
        self.saver.begin(cut, progress, dict(metrics), feeds, actors)
        self.saver.blocked(time.perf_counter() - started)

    def _progress(self, ready: Ready, learner: LearnerState) -> Progress:
        return system_progress(ready.cells, learner, self._clock)

    def hand_in(self, interaction: str, get: Callable[[], tuple[ActorState, dict[str, Any]]]) -> None:
        """Add an interaction's part. Called on its inference thread."""
        if self.saver is not None:
            self.saver.hand_in(interaction, get)


def system_progress(cells: Cells, learner: LearnerState, clock: Clock) -> Progress:
    """Return what a save policy counts: all trainers and buffers together.

    Args:
        cells: for records seen and versions.
        learner: the training side's state.
        clock: for the time.
    """
    return Progress(
        seen=sum(collector.counts.seen for collector in cells.collectors.values()),
        inserted=sum(buffer.inserted for buffer in learner.buffers.values()),
        steps=sum(run.steps for run in learner.trainers.values()),
        time_ms=int(clock.now() * 1000),
        newest_ms=max((buffer.newest_ms for buffer in learner.buffers.values()), default=0),
        second_of_day=clock.second_of_day(),
        versions=cells.store.latest.version,
    )
