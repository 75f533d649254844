"""One tick of the training side, as a plain function: at most one chunk of one trainer's run."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from pamiq_jax.conditions import Decision, Progress, Wake
from pamiq_jax.lifecycle import TrainerEvent, TrainerPhase, transition
from pamiq_jax.publishing import check_finite
from pamiq_jax.runtime.clock import Clock
from pamiq_jax.runtime.compile import published_params
from pamiq_jax.runtime.programs import Programs
from pamiq_jax.runtime.state import Cells, LearnerState, Observe, TrainerRun, TrainReport, ignore
from pamiq_jax.trainer import check_alive, check_not_donated
from pamiq_jax.types import Metrics


def train_tick(
    programs: Programs, learner: LearnerState, cells: Cells, clock: Clock, observe: Observe = ignore
) -> tuple[LearnerState, TrainReport]:
    """Move what was collected into the buffers, then do one chunk of a run, if one is due.

    A run is set up before its first chunk, published and torn down after its last. An exception of
    a trainer ends that trainer and is reported; it is not raised. Called from the training thread.

    Args:
        programs: the compiled system.
        learner: the state before the tick; it is consumed: parts of it are donated.
        cells: records come from here, snapshots go here.
        clock: for the conditions.
        observe: told of each transition.

    Returns:
        The state after the tick, and what was done. It blocks until the chunk is computed.

    Example:
        See `compile_system`.
    """
    learner = drain(programs, learner, cells)
    if learner.running is not None:
        name, wake = learner.running, Wake()
    else:
        learner, name, wake = _choose(programs, learner, cells, clock)
    if name is None:
        return learner, TrainReport(wake=wake)
    work = _Work(programs, learner, cells, clock, observe, name)
    started = clock.now()
    run, report = _advance(work)
    running = name if run.phase is TrainerPhase.TRAINING else None
    report = report._replace(seconds=clock.now() - started)
    return learner.with_trainer(name, run)._replace(running=running), report


def drain(programs: Programs, learner: LearnerState, cells: Cells) -> LearnerState:
    """Return the state with all that was collected moved into the buffers.

    A buffer that must not change within a run is left alone while a run on it is under way.

    Args:
        programs: the compiled system.
        learner: the state before; the buffers in it are donated.
        cells: where the records are.
    """
    held = None
    if learner.running is not None:
        held = programs.system.trainers[learner.running].data
    for name, collector in cells.collectors.items():
        if name == held and programs.system.buffers[name].stable_in_run:
            continue
        # Only what waits now: the other thread goes on collecting, and each record alone would cost a program.
        waiting = collector.counts.pending
        while waiting > 0 and (chunk := collector.drain()) is not None:
            waiting -= chunk.count
            buffer = learner.buffers[name]
            state = programs.add[name](buffer.state, chunk)
            learner = learner.with_buffer(name, buffer._replace(state=state, inserted=buffer.inserted + chunk.count))
    return learner


def progress(programs: Programs, learner: LearnerState, cells: Cells, clock: Clock, name: str) -> Progress:
    """Return what a trainer's condition may know.

    Args:
        programs: the compiled system.
        learner: the training side's state.
        cells: for the number of records seen.
        clock: for the time.
        name: the trainer.
    """
    run, data = learner.trainers[name], programs.system.trainers[name].data
    buffer = learner.buffers[data]
    return Progress(
        size=min(buffer.inserted, programs.system.buffers[data].capacity),
        seen=cells.collectors[data].counts.seen,
        inserted=buffer.inserted,
        sampled=run.sampled,
        steps=run.steps,
        time_ms=int(clock.now() * 1000),
        second_of_day=clock.second_of_day(),
    )


def _choose(
    programs: Programs, learner: LearnerState, cells: Cells, clock: Clock
) -> tuple[LearnerState, str | None, Wake]:
    """Ask the waiting trainers by turns; return the first that may run, or what all wait for."""
    names = list(programs.system.trainers)
    wakes: list[Wake] = []
    for offset in range(len(names)):
        turn = (learner.turn + offset) % len(names)
        name = names[turn]
        run = learner.trainers[name]
        if run.phase is not TrainerPhase.WAITING:
            continue
        now = progress(programs, learner, cells, clock, name)
        decision = _decide(programs, name, now, run.last)
        run = run._replace(reason=decision.reason, last=now if decision.go else run.last)
        learner = learner.with_trainer(name, run)
        if decision.go:
            return learner._replace(turn=(turn + 1) % len(names)), name, Wake()
        wakes.append(decision.wake)
    return learner, None, _earliest(wakes)


def _decide(programs: Programs, name: str, now: Progress, last: Progress) -> Decision:
    schedule = programs.system.trainers[name]
    required = programs.system.buffers[schedule.data].required(schedule.batch_size)
    if now.size < required:
        reason = f"has {now.size} of the {required} records that a batch is drawn from"
        condition = schedule.condition(now, last)
        wait = Wake(records=required - int(now.size))
        return Decision(False, reason if condition.go else condition.reason, wait)
    return schedule.condition(now, last)


def _earliest(wakes: list[Wake]) -> Wake:
    records = [wake.records for wake in wakes if wake.records is not None]
    milliseconds = [wake.milliseconds for wake in wakes if wake.milliseconds is not None]
    return Wake(min(records, default=None), min(milliseconds, default=None))


class _Work(NamedTuple):
    programs: Programs
    learner: LearnerState
    cells: Cells
    clock: Clock
    observe: Observe
    name: str


def _move(work: _Work, run: TrainerRun, event: TrainerEvent) -> TrainerRun:
    phase = transition(run.phase, event)
    work.observe(work.name, run.phase, event, phase)
    return run._replace(phase=phase)


def _advance(work: _Work) -> tuple[TrainerRun, TrainReport]:
    """Do one chunk, and what belongs before the first and after the last."""
    schedule, trainer = work.programs.system.trainers[work.name], work.programs.trainers[work.name]
    run = work.learner.trainers[work.name]
    metrics, version = {}, None
    try:
        if run.phase is TrainerPhase.WAITING:
            run = _move(work, run, TrainerEvent.START)
            run_key = work.programs.fold_in(run.data_key, np.int32(run.runs))
            run = run._replace(state=trainer.setup(run.state), run_key=run_key, runs=run.runs + 1, chunk=0)
            run = _move(work, run, TrainerEvent.SET_UP)
        run, metrics = _train(work, run)
        if run.chunk * trainer.steps < schedule.steps:
            return _move(work, run, TrainerEvent.CHUNK_DONE), TrainReport(work.name, metrics)
        run = _move(work, run, TrainerEvent.STEPS_DONE)
        version = _publish(work, run)
        run = _move(work, run, TrainerEvent.PUBLISHED)
        run = run._replace(state=trainer.teardown(run.state))
        run = _move(work, run, TrainerEvent.TORN_DOWN)._replace(reason="its run has just ended")
        return run, TrainReport(work.name, metrics, version)
    except Exception as error:  # a trainer is the user's code: whatever it raises ends it, and only it
        failed = _move(work, run, TrainerEvent.FAIL)._replace(reason=f"failed: {type(error).__name__}: {error}")
        return failed, TrainReport(work.name, metrics, version, error=error)


def _train(work: _Work, run: TrainerRun) -> tuple[TrainerRun, Metrics]:
    schedule, trainer = work.programs.system.trainers[work.name], work.programs.trainers[work.name]
    published = dict(work.cells.store.latest.params)
    if work.programs.check_donation:
        check_not_donated(published, trainer.plan.donated_part(run.state))
    buffer_state = work.learner.buffers[schedule.data].state
    state, metrics = trainer.chunk(run.state, buffer_state, run.chunk * trainer.steps, run.run_key)
    jax.block_until_ready((state, metrics))
    if not schedule.trainer.compiled:
        check_alive(published)
    steps = trainer.steps
    return run._replace(
        state=state, chunk=run.chunk + 1, steps=run.steps + steps, sampled=run.sampled + steps * schedule.batch_size
    ), metrics


def _publish(work: _Work, run: TrainerRun) -> int:
    published = work.programs.trainers[work.name].publish(run.state)
    params = published_params(work.programs.system, work.name, published)
    check_finite(params)
    return work.cells.store.publish(params, step=run.steps, published_at=work.clock.now()).version
