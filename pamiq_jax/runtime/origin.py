"""Where a run begins from, anew or as it was saved, and the arguments that say so."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pamiq_jax import checkpoint
from pamiq_jax.arguments import checked_kind, checked_names
from pamiq_jax.conditions import Condition
from pamiq_jax.errors import CheckpointNotFoundError, DirectoryHasStatesError, InvalidValueError, UnknownNameError
from pamiq_jax.runtime.clock import Clock
from pamiq_jax.runtime.faults import FaultPolicy
from pamiq_jax.runtime.programs import Compiled, Ready
from pamiq_jax.runtime.system import System

if TYPE_CHECKING:
    from pamiq_jax.checkpoint import MatchReport, StateInfo, StateStore
    from pamiq_jax.runtime.renaming import Renames
    from pamiq_jax.runtime.saved import Cut

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
