"""A running system as one value that can be stored, and back."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, cast

import numpy as np

from pamiq_jax.checkpoint import MatchReport, match, named_leaves
from pamiq_jax.conditions import Progress
from pamiq_jax.data import Collector, CollectorCounts
from pamiq_jax.data.pending import PendingRecords
from pamiq_jax.errors import StateMismatchError, UnknownSchemaError
from pamiq_jax.lifecycle import TrainerPhase
from pamiq_jax.publishing import Snapshot
from pamiq_jax.runtime.fields import fields, later_leaves, present_leaves, without
from pamiq_jax.runtime.mismatch import system_mismatch
from pamiq_jax.runtime.partial import Anew, adapted, find_anew
from pamiq_jax.runtime.programs import Compiled
from pamiq_jax.runtime.renaming import Renames, Renaming
from pamiq_jax.runtime.saved_faults import restored_faults, still_quarantined, stored_faults
from pamiq_jax.runtime.state import ActorState, BufferRun, Faults, LearnerState, TrainerRun
from pamiq_jax.trees import zeros_of
from pamiq_jax.types import Params, PyTree

FORM = 1
"""Raised when the meaning of a stored value changes; older forms stay readable.

A field with a default that is added to a record of `runtime.fields` needs no other form: a state that was written
without it begins with its default. Nor does one that is taken away, if what it held follows from others.
"""


class Cut(NamedTuple):
    """All that decides a system's future, as of one moment between two ticks of each of its threads.

    Attributes:
        learner: the training side.
        actors: the inference side, by interaction.
        snapshot: the newest one.
        waiting: records that were collected and not yet added, and the counts, by buffer name.
        worlds: states of environments and agents that have one, by interaction.
        due: seconds on the clock at which each interaction's next tick is due.
        seconds: on the clock.
    """

    learner: LearnerState
    actors: Mapping[str, ActorState]
    snapshot: Snapshot
    waiting: Mapping[str, tuple[PendingRecords[Any], CollectorCounts]]
    worlds: Mapping[str, dict[str, Any]]
    due: Mapping[str, float]
    seconds: float


def first_cut(compiled: Compiled) -> Cut:
    """Return a compiled system as it begins: the form that a stored one must have."""
    snapshot = Snapshot.of(compiled.params)
    due = dict.fromkeys(compiled.actors, 0.0)
    return Cut(compiled.learner, compiled.actors, snapshot, {}, {}, due, 0.0)


def collected(collectors: Mapping[str, Collector[Any]]) -> dict[str, tuple[PendingRecords[Any], CollectorCounts]]:
    """Return copies of what waits in collectors, and the counts."""
    return {name: _pending_of(collector) for name, collector in collectors.items()}


def _pending_of(collector: Collector[Any]) -> tuple[PendingRecords[Any], CollectorCounts]:
    while True:  # another thread may bring a record in between, but not for long
        counts = collector.counts
        pending = collector.pending_records()
        if collector.counts == counts:
            return pending, counts


def stored_value(cut: Cut) -> dict[str, Any]:
    """Return a cut as a value that `StateStore.write` takes. Nothing is copied."""
    runs = cut.learner.trainers
    return {
        "form": FORM,
        "fields": fields(),
        "leaves": named_leaves(_document(cut)),
        "prefetched": {name: named_leaves(run.prefetched) for name, run in runs.items() if run.prefetched is not None},
        "faults": stored_faults(runs),
        "pending": {
            group: {name: named_leaves(dict(params)) for name, params in members.items()}
            for group, members in cut.learner.pending.items()
        },
        "waiting": {
            name: {"records": named_leaves(records), "counts": tuple(counts)}
            for name, (records, counts) in cut.waiting.items()
        },
        "worlds": dict(cut.worlds),
    }


def _document(cut: Cut) -> dict[str, Any]:
    """Return what has the same leaves in every cut of one system."""
    runs = cut.learner.trainers
    return {
        "trainers": {name: _trainer_document(run) for name, run in runs.items()},
        "buffers": {name: _buffer_document(run) for name, run in cut.learner.buffers.items()},
        "models": dict(cut.learner.models),
        "scheduler": {"now_used": float(cut.learner.now_used), "turn": cut.learner.turn},
        "interactions": {name: {**_plain(actor), "due": float(cut.due[name])} for name, actor in cut.actors.items()},
        "snapshot": {**_plain(cut.snapshot), "params": dict(cut.snapshot.params)},
        "clock": {"seconds": float(cut.seconds)},
    }


def _trainer_document(run: TrainerRun) -> dict[str, Any]:
    return {**_plain(run), "prefetched": (), "faults": (), "phase": str(run.phase)}


def _buffer_document(run: BufferRun) -> dict[str, Any]:
    """Return a buffer without its size, which its own state tells."""
    return {name: value for name, value in _plain(run).items() if name != "size"}


def _plain(values: Any) -> dict[str, Any]:
    named: dict[str, Any] = values._asdict()
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in named.items()}


def restored_cut(
    compiled: Compiled,
    value: Mapping[str, Any],
    *,
    number: int = 0,
    partial: bool = False,
    rename: Renames | None = None,
    revive: bool | Collection[str] = False,
) -> tuple[Cut, MatchReport]:
    """Return a stored system in the form of a compiled one, and what became of each leaf.

    Args:
        compiled: the system, as it would begin.
        value: what `stored_value` returned, read from a store.
        number: of the state, for errors.
        partial: begin with what is stored where it fits, and with what is new elsewhere: parameters leaf by leaf; a
            buffer, an optimizer and an agent's memory whole or not at all, with all that counts on them.
        rename: new names of trainers, models, buffers and interactions.
        revive: True, or which trainers that were quarantined begin anew.

    Raises:
        StateMismatchError: naming each leaf that is missing, unexpected, or of another form.
        UnknownNameError: a rename of what is not stored.
        InvalidValueError: a rename that is no mapping, or that gives two stored parts one name.
        UnknownSchemaError: a newer version of the library wrote it.
    """
    _check_form(value, number)
    names = Renaming({} if rename is None else rename, value["leaves"])
    first = first_cut(compiled)
    leaves = {names.leaf(name): leaf for name, leaf in present_leaves(value["leaves"]).items()}
    template = _document(first)
    later = {name: leaf for name, leaf in later_leaves(template, value.get("fields", {})).items() if name not in leaves}
    stored = {**leaves, **later}
    document, report = match(template, stored, partial=True)
    if report.differences and not partial:
        raise system_mismatch(report)
    anew = (
        find_anew(report, compiled.learner.trainers, compiled.learner.buffers, compiled.actors) if partial else Anew()
    )
    if anew.leaves:
        document, _ = match(template, {leaf: stored[leaf] for leaf in stored.keys() - anew.leaves}, partial=True)
    cut = _cut(_in_order_of(template, document))
    groups, prefetched = names.keys("groups", value["pending"]), names.keys("trainers", value["prefetched"])
    faults = names.keys("trainers", value.get("faults", {}))
    runs = {
        name: run._replace(
            prefetched=_prefetched(compiled, cut.learner, name, prefetched.get(name), partial=partial),
            faults=restored_faults(name, run, faults.get(name), names.leaf),
            **_place_in_run(name, run, compiled.programs.system.trainers[name].chunk),
        )
        for name, run in cut.learner.trainers.items()
    }
    runs = {name: still_quarantined(run, revive, name) for name, run in runs.items()}
    if partial:
        runs = _adapted(compiled, cut.learner, runs, anew)
    pending = {group: _pending(compiled, names, members, partial=partial) for group, members in groups.items()}
    waiting, lost = _waiting(compiled, names.keys("buffers", value["waiting"]), anew, partial=partial)
    report = report._replace(
        taken=tuple(leaf for leaf in report.taken if leaf not in anew.leaves),
        anew=anew._replace(waiting=lost).reasons,
    )
    buffers = {
        name: run._replace(size=compiled.programs.size(name, run.state, run.inserted))
        for name, run in cut.learner.buffers.items()
    }
    return cut._replace(
        learner=cut.learner._replace(trainers=runs, buffers=buffers, pending=pending),
        waiting=waiting,
        worlds=names.keys("interactions", value["worlds"]),
    ), without(report, later)


def lengths_in_run(value: Mapping[str, Any], *, number: int, rename: Renames | None) -> dict[str, int]:
    """Return how many steps a chunk has of each trainer that a stored system is within a run of, by its new name.

    Args:
        value: what `stored_value` returned, read from a store.
        number: of the state, for errors.
        rename: new names of trainers.

    Raises:
        UnknownSchemaError: a newer version of the library wrote it.
    """
    _check_form(value, number)
    names = Renaming({} if rename is None else rename, value["leaves"])
    lengths = names.keys("trainers", _of_trainers(value["leaves"], "chunk_steps"))
    phases = names.keys("trainers", _of_trainers(value["leaves"], "phase"))
    return {name: int(size) for name, size in lengths.items() if size and phases[name] == TrainerPhase.TRAINING}


def _of_trainers(leaves: Mapping[str, Any], field: str) -> dict[str, Any]:
    found = {re.fullmatch(rf"\['trainers'\]\['([^']*)'\]\['{field}'\]", name): leaf for name, leaf in leaves.items()}
    return {match[1]: leaf for match, leaf in found.items() if match is not None}


def _check_form(value: Mapping[str, Any], number: int) -> None:
    form = value.get("form")
    if not isinstance(form, int):
        raise StateMismatchError([f"form: expected {FORM}, stored is {form}; no system was saved here"])
    if form > FORM:
        raise UnknownSchemaError(number, form, FORM)


def _in_order_of(template: Any, value: Any) -> Any:
    """Return a value with its dicts in the template's order, which JAX does not keep: turns go by it."""
    if not isinstance(template, dict):
        return value
    return {key: _in_order_of(part, value[key]) for key, part in cast(dict[str, Any], template).items()}


def _cut(document: Mapping[str, Any]) -> Cut:
    actors: dict[str, ActorState] = {}
    due: dict[str, float] = {}
    seconds = document["clock"]["seconds"]
    for name, values in document["interactions"].items():
        due[name] = max(values.pop("due"), seconds)  # one that is new begins now
        actors[name] = ActorState(**values)
    published = document["snapshot"]
    snapshot = Snapshot.of(published.pop("params"))._replace(**published)
    learner = LearnerState(
        trainers={name: _trainer_run(values) for name, values in document["trainers"].items()},
        buffers={name: BufferRun(**values) for name, values in document["buffers"].items()},
        models=document["models"],
        **document["scheduler"],
    )
    return Cut(learner, actors, snapshot, {}, {}, due, seconds)


def _trainer_run(values: dict[str, Any]) -> TrainerRun:
    """Return a trainer as it was; one that had failed or been stopped waits, and begins its next run anew."""
    phase = TrainerPhase(values["phase"])
    last = {key: Progress(*progress) for key, progress in values["last"].items()}
    changes: dict[str, Any] = {"phase": phase, "prefetched": None, "faults": Faults(), "last": last}
    run = TrainerRun(**(values | changes))
    if phase in (TrainerPhase.WAITING, TrainerPhase.TRAINING):
        return run
    return run._replace(phase=TrainerPhase.WAITING, chunk=0, reason=f"restored; it was {phase}")


def _place_in_run(name: str, run: TrainerRun, chunk: int) -> dict[str, int]:
    """Return how many chunks a run has behind it, if its chunks have another length from here on.

    Raises:
        StateMismatchError: the steps that are done are no whole number of such chunks.
    """
    if run.phase is not TrainerPhase.TRAINING or run.chunk_steps in (0, chunk):
        return {}
    done, remainder = divmod(run.chunk * run.chunk_steps, chunk)
    if remainder:
        steps = f"trainer {name!r} is within a run, {run.chunk * run.chunk_steps} steps in"
        remedy = f"resume with steps_per_chunk={run.chunk_steps}, which it was saved with, or with a divisor of it"
        raise StateMismatchError([f"{steps}: no whole number of chunks of {chunk}"], remedy=remedy)
    return {"chunk": done, "chunk_steps": chunk}


def _prefetched(
    compiled: Compiled, learner: LearnerState, name: str, stored: Mapping[str, Any] | None, *, partial: bool
) -> PyTree | None:
    gather, run = compiled.programs.trainers[name].gather, learner.trainers[name]
    if run.chunk_steps not in (0, compiled.programs.system.trainers[name].chunk):
        return None  # they are of another number of steps
    if stored is None or gather is None:
        return None
    sources = compiled.programs.system.trainers[name].sources
    states = {key: learner.buffers[source.buffer].state for key, source in sources.items()}
    batches, report = match(gather(states, 0, run.data_key), stored, partial=partial)
    return None if report.differences else batches  # what is drawn again is the same


def _adapted(
    compiled: Compiled, learner: LearnerState, runs: Mapping[str, TrainerRun], anew: Anew
) -> dict[str, TrainerRun]:
    """Return the trainers without what they have counted of parts that begin anew, or that are others than before."""
    schedules = compiled.programs.system.trainers
    finished = {name: run.finished for name, run in runs.items()}
    adapted_runs = {name: adapted(name, run, schedules[name], learner.buffers, anew) for name, run in runs.items()}
    return {
        name: run._replace(after={other: min(count, finished[other]) for other, count in run.after.items()})
        for name, run in adapted_runs.items()
    }


def _pending(
    compiled: Compiled, names: Renaming, members: Mapping[str, Mapping[str, Any]], *, partial: bool
) -> dict[str, Mapping[str, Params]]:
    pending: dict[str, Mapping[str, Params]] = {}
    for name, leaves in names.keys("trainers", members).items():
        if name in compiled.programs.system.trainers:
            template = {model: compiled.params[model] for model in compiled.programs.system.published_by(name)}
            stored = {names.leaf(leaf): value for leaf, value in leaves.items()}
            params, report = match(template, stored, partial=partial)
            if not report.differences:
                pending[name] = params
    return pending


def _waiting(
    compiled: Compiled, stored: Mapping[str, Any], anew: Anew, *, partial: bool
) -> tuple[dict[str, tuple[PendingRecords[Any], CollectorCounts]], dict[str, str]]:
    """Return what waits in the collectors, and what is lost of it, with the reason."""
    waiting: dict[str, tuple[PendingRecords[Any], CollectorCounts]] = {}
    lost: dict[str, str] = {}
    for name, part in stored.items():
        if name not in compiled.examples:
            continue  # a buffer that is gone: strict matching has refused that already
        counts = CollectorCounts(*part["counts"])
        rows = zeros_of(compiled.record_form(name), counts.pending)
        matched, report = match(PendingRecords(rows, np.int32(0), np.bool_(False)), part["records"], partial=partial)
        most = compiled.programs.system.queue(name).capacity
        if report.differences:
            lost[name] = f"{counts.pending} records waited, {report.differences[0]}"
        elif partial and counts.pending > most:
            lost[name] = f"{counts.pending} records waited, it holds {most} now"
        else:
            waiting[name] = _counted_anew(matched, counts) if name in anew.buffers else (matched, counts)
    return waiting, lost


def _counted_anew(waiting: PendingRecords[Any], counts: CollectorCounts) -> tuple[PendingRecords[Any], CollectorCounts]:
    """Return what waits for a buffer that begins anew: the first that come, after a gap."""
    is_first = np.array(waiting.records.is_first)
    is_first[:1] = True
    records = waiting.records._replace(is_first=is_first)
    return waiting._replace(records=records), CollectorCounts(counts.pending, 0, counts.pending)
