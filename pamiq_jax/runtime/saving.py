"""Where a run's states go, where it begins from, and the arguments that say so."""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pamiq_jax import checkpoint
from pamiq_jax.arguments import checked_kind, checked_names
from pamiq_jax.conditions import Condition, Progress, Wake
from pamiq_jax.errors import CheckpointNotFoundError, DirectoryHasStatesError, InvalidValueError, UnknownNameError
from pamiq_jax.runtime.clock import Clock
from pamiq_jax.runtime.faults import FaultPolicy
from pamiq_jax.runtime.programs import Compiled, Ready
from pamiq_jax.runtime.save_status import SaveStatus
from pamiq_jax.runtime.state import ActorState, Cells, LearnerState
from pamiq_jax.runtime.system import System
from pamiq_jax.types import Metrics

if TYPE_CHECKING:
    from pamiq_jax.checkpoint import MatchReport, Retention, StateInfo, StateStore
    from pamiq_jax.checkpoint.block_process import BlockProcess
    from pamiq_jax.runtime.renaming import Renames
    from pamiq_jax.runtime.saved import Cut
    from pamiq_jax.runtime.saver import Saver

_LOGGER = logging.getLogger("pamiq_jax")


class Restored(NamedTuple):
    """What a run has begun from.

    Attributes:
        state: which state.
        directory: where it lay.
        report: what became of each leaf.
    """

    state: StateInfo
    directory: Path
    report: MatchReport


class Origin(NamedTuple):
    """Which state to begin from, and how.

    Attributes:
        directory: where it lies.
        number: which one; None is the newest that can be read.
        is_optional: whether to begin anew if there is none.
        partial: whether what does not fit begins anew.
        rename: new names of trainers, models, buffers and interactions.
        revive: True, or which trainers that were quarantined begin anew.
    """

    directory: Path
    number: int | None = None
    is_optional: bool = False
    partial: bool = False
    rename: Renames | None = None
    revive: bool | Collection[str] = False

    def read(self, compiled: Compiled) -> tuple[Cut, Restored] | None:
        """Return the state in the form of a compiled system, or None if there is none and that may be.

        Raises:
            StateMismatchError: it does not fit.
            CorruptStateError: the one that was named is damaged, or all are.
            UnknownNameError: there is none.
            UnknownSchemaError: a newer version of the library wrote it.
        """
        from pamiq_jax.runtime.saved import restored_cut

        store = checkpoint.StateStore(self.directory)
        found = self._find(store)
        if found is None:
            return None
        state, value = found
        cut, report = restored_cut(
            compiled,
            value,
            number=state.number,
            partial=self.partial,
            rename=self.rename,
            revive=self.revive,
        )
        for part, why in report.anew.items():
            _LOGGER.warning("state %d is taken in part: %s begins anew: %s", state.number, part, why)
        return cut, Restored(state, self.directory, report)

    def lengths_in_run(self) -> dict[str, int]:
        """Return how many steps a chunk has of each trainer that the state is within a run of.

        Raises:
            CorruptStateError, UnknownNameError, UnknownSchemaError: as `read`.
        """
        from pamiq_jax.runtime.saved import lengths_in_run

        found = self._find(checkpoint.StateStore(self.directory))
        return {} if found is None else lengths_in_run(found[1], number=found[0].number, rename=self.rename)

    def _find(self, store: StateStore) -> tuple[StateInfo, Any] | None:
        """Return the state that was named, or the newest that can be read: damaged newer ones are logged."""
        if self.number is None:
            newest = store.read_latest()
            if newest is None and not self.is_optional:
                raise UnknownNameError("state", "the newest", (), str(self.directory))
            return newest
        states = {info.number: info for info in store.states()}
        if self.number not in states:
            raise UnknownNameError("state", self.number, states, str(self.directory))
        return states[self.number], store.read(self.number)


def check_policies(where: str, system: System, save: Any, keep: Any, faults: Any) -> None:
    """Raise if what a run is told about saving and failing is no policy.

    Raises:
        InvalidValueError: naming the argument.
        UnknownNameError: `faults` repairs a trainer that does not exist.
    """
    checked_kind(f"{where}(system)", system, System, "a System", "build one of models, buffers and trainers")
    if save is not None and not isinstance(save, Condition):
        raise InvalidValueError(f"{where}(save)", save, "a condition", "write every_seconds(60), for example")
    if keep is not None and not isinstance(keep, checkpoint.Retention):
        raise InvalidValueError(f"{where}(keep)", keep, "a retention", "write latest_n(3), for example")
    if not isinstance(faults, FaultPolicy):
        remedy = "write fail_fast() or keep_acting(), with brackets"
        raise InvalidValueError(f"{where}(faults)", faults, "a FaultPolicy", remedy)
    faults.check(system.trainers)


def check_revive(where: str, system: System, revive: bool | Collection[str]) -> None:
    """Raise if what is to begin anew are no trainers of a system.

    Raises:
        InvalidValueError: one name, whose letters would be taken for names.
        UnknownNameError: there is no such trainer.
    """
    if not isinstance(revive, bool):
        checked_names(f"{where}(revive)", revive, "trainer")
        for name in revive:
            if name not in system.trainers:
                raise UnknownNameError("trainer", name, system.trainers, f"{where}(revive)")


def find_origin(
    directory: Path | None,
    resume: bool | int | str | os.PathLike[str],
    **how: Any,
) -> Origin | None:
    """Return where a run begins from, as `launch` and `run_lockstep` are told.

    Args:
        directory: the run's own.
        resume: False begins anew; True goes on from the newest state in the directory that can be read, if there is
            one; a number from that one; a path from the newest of another run.
        how: `partial`, `rename` and `revive`, see `Origin`.

    Raises:
        DirectoryHasStatesError: a new run would put its states among those of another one.
        InvalidValueError: there is no directory to resume from.
        CheckpointNotFoundError: the path holds no state.
    """
    if not isinstance(cast(Any, resume), bool | int | str | os.PathLike):
        raise InvalidValueError("resume", resume, "True, False, the number of a state, or a path")
    if resume is False and (how.get("partial") or how.get("rename")):
        remedy = "pass resume=True, a number or a path, to begin from a state"
        raise InvalidValueError("partial or rename", how, "nothing without resume=", remedy)
    if how.get("rename") is not None:
        from pamiq_jax.runtime.renaming import check_rename

        check_rename(how["rename"])
    has_states = directory is not None and checkpoint.StateStore(directory).latest() is not None
    is_own = isinstance(resume, bool | int)
    if has_states and (resume is False or not is_own):
        raise DirectoryHasStatesError(
            f"{directory} has states of an earlier run; pass resume=True to go on from the newest, or give this run "
            "another directory"
        )
    if resume is False:
        return None
    if not is_own:
        if checkpoint.StateStore(Path(resume)).latest() is None:
            raise CheckpointNotFoundError(resume)
        return Origin(Path(resume), **how)
    if directory is None:
        raise InvalidValueError("resume", resume, "False without a directory", "pass directory=, or a path to resume")
    is_any = resume is True
    return Origin(directory, None if is_any else int(resume), is_optional=is_any, **how)


class Begun(NamedTuple):
    """A system at its beginning, anew or as it was saved.

    Attributes:
        ready: with the values that it begins from, and what its ticks meet at.
        cut: what was saved; None if it begins anew.
        restored: where that lay; None if it begins anew.
    """

    ready: Ready
    cut: Cut | None = None
    restored: Restored | None = None


def begin(compiled: Compiled, origin: Origin | None, clock: Clock) -> Begun:
    """Return a compiled system where its run begins.

    Args:
        compiled: the system as it would begin anew.
        origin: what to restore; None for nothing.
        clock: set to the time that was saved.

    Raises:
        StateMismatchError, CorruptStateError, UnknownNameError: as `Origin.read`.
    """
    found = None if origin is None else origin.read(compiled)
    if found is None:
        return Begun(Ready(compiled, compiled.cells(clock.now()), clock.now()))
    cut, restored = found
    clock.set(cut.seconds)
    compiled = compiled._replace(learner=cut.learner, actors=dict(cut.actors))
    cells = compiled.cells(cut.snapshot.published_at)
    cells.store.restore(cut.snapshot)
    for name, (records, counts) in cut.waiting.items():
        cells.collectors[name].restore(records, counts)
    for name, collector in cells.collectors.items():
        if not all(cut.worlds.get(feeder) for feeder in compiled.programs.system.feeders(name)):
            collector.mark_gap()  # the world that it comes from begins anew
    return Begun(Ready(compiled, cells, clock.now(), cut.worlds), cut, restored)


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
        self, directory: Path | None, on_error: Callable[[Exception], None], on_free: Callable[[], None]
    ) -> Saving:
        """Return the run's saves; starts their thread and their process if there is a directory."""
        if directory is None:
            return Saving(None, self.origin)
        from pamiq_jax.checkpoint.files import LOCAL_FILES
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
    from pamiq_jax.checkpoint.files import LOCAL_FILES
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
