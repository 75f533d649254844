"""What begins anew as a whole when a stored state fits only in part: leaves that count on each other are not mixed.

A ring's cursor says nothing without its records, and a moment of Adam nothing beside parameters of another shape.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

from pamiq_jax.checkpoint import MatchReport
from pamiq_jax.conditions import Progress
from pamiq_jax.lifecycle import TrainerPhase
from pamiq_jax.runtime.state import ActorState, BufferRun, TrainerRun
from pamiq_jax.runtime.system import Schedule
from pamiq_jax.trees import leaf_names


class Anew(NamedTuple):
    """The parts of a system that begin anew, with the reason.

    Attributes:
        buffers: by name.
        trainers: by name, those whose optimizer and counters begin anew; their parameters may have been taken.
        carries: by the name of the interaction, whose agent's memory begins anew.
        waiting: by the name of the buffer, what waited for it and is lost.
        leaves: stored leaves that are left out for it, though they would fit.
    """

    buffers: Mapping[str, str] = MappingProxyType({})
    trainers: Mapping[str, str] = MappingProxyType({})
    carries: Mapping[str, str] = MappingProxyType({})
    waiting: Mapping[str, str] = MappingProxyType({})
    leaves: frozenset[str] = frozenset()

    @property
    def reasons(self) -> dict[str, str]:
        """Why, by the parts in words."""
        return {
            **{f"buffer {name!r}": why for name, why in self.buffers.items()},
            **{f"optimizer of trainer {name!r}": why for name, why in self.trainers.items()},
            **{f"memory of the agent in {name!r}": why for name, why in self.carries.items()},
            **{f"queue of buffer {name!r}": why for name, why in self.waiting.items()},
        }


def find_anew(
    report: MatchReport,
    trainers: Mapping[str, TrainerRun],
    buffers: Mapping[str, BufferRun],
    actors: Mapping[str, ActorState],
) -> Anew:
    """Return what begins anew, given what became of each leaf when each was taken that fits.

    Args:
        report: on all leaves of the system.
        trainers: as they begin anew, by name.
        buffers: likewise.
        actors: likewise, by interaction.
    """
    problems = {
        **dict.fromkeys(report.missing, "nothing is stored under this name"),
        **report.different,
        **dict.fromkeys(report.unexpected, "stored, but not in this system"),
    }
    leaves: set[str] = set()

    def reasons(places: Mapping[str, str], free: Mapping[str, Collection[str]], *, also_new: bool) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, place in places.items():
            taken = [leaf for leaf in report.taken if leaf.startswith(place)]
            bad = [leaf for leaf in problems if leaf.startswith(place) and f"{place}.reads[" not in leaf]
            if bad and (taken or also_new):
                is_new = not taken and set(bad) <= set(report.missing)
                found[name] = "nothing of it is stored" if is_new else _first_of(bad, problems)
                leaves.update(leaf for leaf in taken if leaf not in free.get(name, ()))
        return found

    rooms = {name: f"['buffers'][{name!r}]" for name in buffers}
    states = {name: f"['trainers'][{name!r}]['state']" for name in trainers}
    carries = {name: f"['interactions'][{name!r}]['carry']" for name in actors}
    free = {name: _parameters(trainers[name].state, states[name]) for name in trainers}
    return Anew(
        buffers=reasons(rooms, {}, also_new=True),
        trainers=reasons(states, free, also_new=False),
        carries=reasons(carries, {}, also_new=False),
        leaves=frozenset(leaves),
    )


def _first_of(bad: Iterable[str], problems: Mapping[str, str]) -> str:
    first, *others = bad
    return f"{first}: {problems[first]}" + (f", and {len(others)} more" if others else "")


def _parameters(state: Any, place: str) -> frozenset[str]:
    """Return the names of the leaves that are parameters: each is taken where it fits, on its own."""
    names = leaf_names(state)
    positions = jax.tree.unflatten(jax.tree.structure(state), range(len(names)))
    parts = (getattr(positions, field, ()) for field in ("params", "reads"))
    return frozenset(f"{place}{names[index]}" for part in parts for index in jax.tree.leaves(part))


def adapted(name: str, run: TrainerRun, schedule: Schedule, buffers: Mapping[str, BufferRun], anew: Anew) -> TrainerRun:
    """Return a restored trainer that counts nothing of a buffer that has begun anew.

    A run that was under way on such a buffer, or with another optimizer, is not gone on with: it would draw from an
    empty buffer.

    Args:
        name: the trainer's.
        run: restored.
        schedule: of the trainer.
        buffers: restored or anew.
        anew: what begins anew.
    """
    lost = {
        key: source.batch_size
        for key, source in schedule.sources.items()
        if source.buffer in anew.buffers or run.last[key].inserted > buffers[source.buffer].inserted
    }
    good = run.faults.good
    if good is not None:
        good = good._replace(last=_without(good.last, lost, run.steps))
    run = run._replace(last=_without(run.last, lost, run.steps), faults=run.faults._replace(good=good))
    if not lost and name not in anew.trainers:
        return run
    what = "a buffer of its has begun anew" if lost else "its optimizer has begun anew"
    run = run._replace(prefetched=None)
    if run.phase is TrainerPhase.TRAINING:
        run = run._replace(phase=TrainerPhase.WAITING, chunk=0, reason=f"restored within a run, but {what}")
    return run


def _without(last: Mapping[str, Progress], lost: Mapping[str, int], steps: int) -> Mapping[str, Progress]:
    """Return the progress at the last run without what it says of buffers that are gone.

    What was drawn from them is settled: a trainer that learns in proportion to what came begins with nothing owed.
    """
    return {
        key: progress._replace(size=0, seen=0, inserted=0, newest_ms=0, forgiven=-steps * lost[key])
        if key in lost
        else progress
        for key, progress in last.items()
    }
