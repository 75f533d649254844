"""Whose turn it is: which trainers could do a chunk now, and which of them does."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from pamiq_jax.conditions import Decision, Progress, Wake, first_change
from pamiq_jax.errors import WorkerError
from pamiq_jax.lifecycle import TrainerPhase, is_final
from pamiq_jax.runtime.clock import Clock
from pamiq_jax.runtime.failures import named
from pamiq_jax.runtime.programs import Programs
from pamiq_jax.runtime.rollback import backing_off
from pamiq_jax.runtime.state import Cells, LearnerState, TrainerRun


class Choice(NamedTuple):
    """Whose turn it is.

    Attributes:
        learner: the training side's state, with the reasons of today.
        trainer: which one does the next chunk; None if all wait.
        wake: what all wait for, if they do.
        error: why the trainer fails instead: its condition has raised, or a buffer that it learns from is broken.
        now: the progress on each of its sources that its condition was asked with, if it begins a run.
    """

    learner: LearnerState
    trainer: str | None
    wake: Wake = Wake()
    error: Exception | None = None
    now: Mapping[str, Progress] = MappingProxyType({})


def choose(programs: Programs, learner: LearnerState, cells: Cells, clock: Clock) -> Choice:
    """Return the trainer that does the next chunk, or None and what all wait for.

    Of the trainers that could, those of the highest priority; of these, the one that has had the least time for
    its weight; of equal ones, the next in turn. So a slow trainer gets its share and no more, and on a clock
    that stands still within a tick, as in lockstep, they go by turns. One that waits for its own condition saves
    nothing up meanwhile; one that others keep from running does. One that cannot even be asked comes first.

    Args:
        programs: the compiled system.
        learner: the training side's state; the reasons in it are brought up to date.
        cells: for the number of records seen.
        clock: for the time.
    """
    names = list(learner.trainers)
    able: list[str] = []
    wakes: list[Wake] = []
    asked: dict[str, Mapping[str, Progress]] = {}
    for name in names[learner.turn :] + names[: learner.turn]:
        run = learner.trainers[name]
        if (error := broken_for(programs, learner, name)) is not None:
            return Choice(learner, name, error=error)
        if run.phase is TrainerPhase.TRAINING:
            able.append(name)
        elif run.phase is TrainerPhase.WAITING:
            blocked = waits_for_others(programs, learner, cells, name)
            try:
                asked[name] = {} if blocked else progress(programs, learner, cells, clock, name)
                decision = Decision(False, blocked) if blocked else decide(programs, learner, asked[name], clock, name)
            except Exception as error:  # conditions and buffers are the user's code: it concerns this trainer only
                return Choice(learner, name, error=error)
            used = run.used if blocked or decision.go else max(run.used, learner.now_used)
            reason = decision.reason + group_note(programs, learner, name)
            learner = learner.with_trainer(name, run._replace(reason=reason, used=used))
            (able.append(name) if decision.go else wakes.append(decision.wake))
    if not able:
        return Choice(learner, None, first_change(wakes, of_all=False))
    trainers = programs.system.trainers
    chosen = min(able, key=lambda name: (-trainers[name].priority, learner.trainers[name].used))
    turn = (names.index(chosen) + 1) % len(names)
    for name in able:
        run = learner.trainers[name]
        if run.phase is TrainerPhase.WAITING and trainers[name].priority < trainers[chosen].priority:
            reason = f"{run.reason}; {chosen!r} goes first, its priority is higher"
            learner = learner.with_trainer(name, run._replace(reason=reason))
    learner = learner._replace(turn=turn, now_used=learner.trainers[chosen].used)
    return Choice(learner, chosen, now=asked.get(chosen, {}))


def broken_for(programs: Programs, learner: LearnerState, name: str) -> WorkerError | None:
    """Return why a trainer can learn no more: a buffer of its has failed to add records. None if it can, or has ended.

    Args:
        programs: the compiled system.
        learner: the training side's state.
        name: the trainer.
    """
    if not learner.broken or is_final(learner.trainers[name].phase):
        return None
    sources = programs.system.trainers[name].sources.values()
    return next((learner.broken[source.buffer] for source in sources if source.buffer in learner.broken), None)


def decide(programs: Programs, learner: LearnerState, now: Mapping[str, Progress], clock: Clock, name: str) -> Decision:
    """Return whether a waiting trainer that no other one keeps from running may begin a run, and why.

    Args:
        programs: the compiled system.
        learner: the training side's state.
        now: its progress on each of its sources.
        clock: for the time.
        name: the trainer.

    Raises:
        WorkerError: naming the condition, or the buffer's function, that has raised.
    """
    run = learner.trainers[name]
    if (decision := backing_off(run, clock.now())) is not None:
        return decision
    decisions: list[Decision] = []
    for key, source in programs.system.trainers[name].sources.items():
        with named(f"condition of trainer {name!r}"):
            decision = source.condition(now[key], run.last.get(key, Progress()))
        with named(f"required of buffer {source.buffer!r}, asked for trainer {name!r}"):
            required = programs.system.buffers[source.buffer].required(source.batch_size)
        if (missing := required - int(now[key].size)) > 0:
            reason = f"has {now[key].size} of the {required} records that a batch is drawn from"
            decision = Decision(False, reason if decision.go else decision.reason, Wake(records=missing))
        elif decision.go and (missing := _stale(programs, run, source.buffer, key, now[key])) > 0:
            decision = Decision(
                False, f"waits for {missing} new records, each is learned from once", Wake(records=missing)
            )
        elif decision.go and not _can_sample(programs, learner, source.buffer, name):
            decision = Decision(False, "has no batch that could be drawn, for example no whole window", Wake(records=1))
        decisions.append(decision._replace(reason=f"{key}: {decision.reason}" if key else decision.reason))
    refusals = [decision for decision in decisions if not decision.go]
    reason = " and ".join(decision.reason for decision in refusals or decisions)
    return Decision(not refusals, reason, first_change([decision.wake for decision in refusals], of_all=False))


def _stale(programs: Programs, run: TrainerRun, buffer: str, key: str, now: Progress) -> int:
    """Return how many records are missing to those that a buffer asks to be new since the last run."""
    return programs.system.buffers[buffer].fresh - int(now.inserted - run.last.get(key, Progress()).inserted)


def _can_sample(programs: Programs, learner: LearnerState, buffer: str, trainer: str) -> bool:
    can_sample = programs.can_sample.get(buffer)
    if can_sample is None:
        return True
    with named(f"can_sample of buffer {buffer!r}, asked for trainer {trainer!r}"):
        return bool(can_sample(learner.buffers[buffer].state))


def waits_for_others(programs: Programs, learner: LearnerState, cells: Cells, name: str) -> str:
    """Return why other trainers keep one from running; "" if they don't.

    Args:
        programs: the compiled system.
        learner: the training side's state.
        cells: for the number of records that wait.
        name: the trainer.
    """
    system = programs.system
    for other in system.trainers[name].after:
        if learner.trainers[other].finished <= learner.trainers[name].after.get(other, 0):
            has_failed = learner.trainers[other].phase is TrainerPhase.FAILED
            return f"waits for a run of {other!r}" + (", which has failed" if has_failed else "")
    for other in learner.running:
        if shared := set(system.trained_by(name)) & set(system.trained_by(other)):
            return f"waits for {other!r}, which is training {', '.join(sorted(shared))}"
    held = held_buffers(programs, learner)
    for buffer in [source.buffer for source in system.trainers[name].sources.values() if source.buffer in held]:
        # It is filled between two runs only. If trainers took turns in being within one, it would never be.
        if 2 * cells.collectors[buffer].counts.pending >= system.queue(buffer).capacity:
            return f"waits until buffer {buffer!r}, which a run is under way on, has taken in the records that wait"
    return ""


def held_buffers(programs: Programs, learner: LearnerState) -> set[str]:
    """Return the buffers that must stay as they are for now: a run is under way on them.

    Args:
        programs: the compiled system.
        learner: the training side's state.
    """
    system = programs.system
    used = {source.buffer for name in learner.running for source in system.trainers[name].sources.values()}
    return {name for name in used if system.buffers[name].stable_in_run}


def group_note(programs: Programs, learner: LearnerState, name: str) -> str:
    """Return what is added to a trainer's reason when nothing of its group is published any more.

    Args:
        programs: the compiled system.
        learner: the training side's state.
        name: the trainer.
    """
    schedules = programs.system.trainers
    members = [other for other in schedules if other != name and schedules[other].group == schedules[name].group]
    failed = [repr(other) for other in members if learner.trainers[other].phase is TrainerPhase.FAILED]
    if schedules[name].group is None or not failed:
        return ""
    return f"; group {schedules[name].group!r} publishes no more, since {', '.join(failed)} failed"


def progress(programs: Programs, learner: LearnerState, cells: Cells, clock: Clock, name: str) -> dict[str, Progress]:
    """Return what a trainer's conditions may know, for each of its sources.

    Args:
        programs: the compiled system.
        learner: the training side's state.
        cells: for the number of records seen.
        clock: for the time.
        name: the trainer.
    """
    run = learner.trainers[name]
    result: dict[str, Progress] = {}
    for key, source in programs.system.trainers[name].sources.items():
        inserted = learner.buffers[source.buffer].inserted
        result[key] = Progress(
            size=learner.buffers[source.buffer].size,
            seen=cells.collectors[source.buffer].counts.seen,
            inserted=inserted,
            sampled=run.steps * source.batch_size,
            steps=run.steps,
            time_ms=int(clock.now() * 1000),
            second_of_day=clock.second_of_day(),
            busy_ms=int(run.busy_seconds * 1000),
            newest_ms=learner.buffers[source.buffer].newest_ms,
            versions=cells.store.latest.version,
        )
    return result
