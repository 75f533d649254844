"""One tick of the training side, as a plain function: at most one chunk of one trainer's run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from pamiq_jax.conditions import Progress, Wake
from pamiq_jax.errors import WorkerError
from pamiq_jax.lifecycle import TrainerEvent, TrainerPhase, transition
from pamiq_jax.runtime.clock import Clock
from pamiq_jax.runtime.compile import check_results, handed_on, published_params, taken_over
from pamiq_jax.runtime.failures import named
from pamiq_jax.runtime.faults import FaultPolicy
from pamiq_jax.runtime.programs import Programs
from pamiq_jax.runtime.rollback import after_failure, check_updates, end_of_run, keep_good
from pamiq_jax.runtime.scheduling import broken_for, choose, group_note, held_buffers
from pamiq_jax.runtime.state import (
    BufferRun,
    Cells,
    LearnerState,
    Linger,
    Observe,
    TrainerRun,
    TrainReport,
    UnderWay,
    ignore,
)
from pamiq_jax.runtime.system import Schedule
from pamiq_jax.trainer import TrainerPrograms, check_not_donated
from pamiq_jax.trainer.addresses import check_alive
from pamiq_jax.trainer.drawing import NO_RUN
from pamiq_jax.trainer.priorities import PRIORITIES, RecordPriorities, take_priorities
from pamiq_jax.types import Metrics, Params, PyTree


def train_tick(
    programs: Programs,
    learner: LearnerState,
    cells: Cells,
    clock: Clock,
    observe: Observe = ignore,
    *,
    is_frozen: bool = False,
    linger: Linger | None = None,
) -> tuple[LearnerState, TrainReport]:
    """Move what was collected into the buffers, then do one chunk of a run, if one is due.

    A run is set up before its first chunk, published and torn down after its last. Priorities that the chunk's steps
    gave to records are stored in their buffers after it. An exception of a trainer ends that trainer, or has it begin
    anew, as `Programs.faults` says; it is reported and not raised. So is one of its condition. If `add` of a buffer
    raises, the buffer takes no more records, and the trainers that learn from it end. Called from the training thread.

    Args:
        programs: the compiled system.
        learner: the state before the tick; it is consumed: parts of it are donated.
        cells: records come from here, snapshots go here.
        clock: for the conditions.
        observe: told of each transition.
        is_frozen: leave the buffers as they are, for they are being saved; records wait.
        linger: how long to wait for a chunk that is not its run's last; the next tick then hands its own chunk to the
            device and waits for this one; should the device have failed, the tick after that one says so. A chunk that
            calls Python is waited for anyway, since it may fail at any time. None waits for each.

    Returns:
        The state after the tick, and what was done. Without `linger` the chunk is computed; batches of the next chunk
        from buffers on the host may still be under way then.

    Example:
        See `compile_system`.
    """
    if not is_frozen:
        before, learner = learner.broken, drain(programs, learner, cells, clock)
        has_broken = learner.broken is not before
        if has_broken and (error := _untold(programs, before, learner.broken)) is not None:
            return learner, TrainReport(wake=Wake(milliseconds=0), error=error)
    if learner.failed is None:
        learner, name, wake, error, now = choose(programs, learner, cells, clock)
    else:
        (name, error), wake, now = learner.failed, Wake(), {}
    previous, learner = learner.under_way, learner._replace(under_way=None, failed=None)
    if name is None:
        return _caught_up(learner, previous), TrainReport(wake=wake)
    started = clock.now()
    work = _Work(programs, cells, clock, observe, name, now, overlaps=linger is not None)
    if error is None:
        learner, report = _advance(work, learner)
    else:
        learner, report = _fail(work, learner, error)
    learner = _caught_up(learner, previous)
    if linger is not None and learner.under_way is not None:
        linger(*learner.under_way)
    seconds = clock.now() - started
    run = learner.trainers[name]
    used = run.used + seconds / programs.system.trainers[name].weight
    learner = learner.with_trainer(name, run._replace(used=used, busy_seconds=run.busy_seconds + seconds))
    return learner, report._replace(seconds=seconds)


def _caught_up(learner: LearnerState, previous: UnderWay | None) -> LearnerState:
    """Return the state once the chunk of an earlier tick is computed; if it has failed, so has its trainer's run."""
    if previous is None:
        return learner
    try:
        jax.block_until_ready(previous.metrics)
    except Exception as error:
        if learner.trainers[previous.trainer].phase is not TrainerPhase.TRAINING:
            return learner  # its last chunk has failed of the same, and that is told
        error.add_note(f"while it was {TrainerPhase.TRAINING}")
        mine = learner.under_way is not None and learner.under_way.trainer == previous.trainer
        return learner._replace(failed=(previous.trainer, error), under_way=None if mine else learner.under_way)
    return learner


def _untold(
    programs: Programs, before: Mapping[str, WorkerError], after: Mapping[str, WorkerError]
) -> WorkerError | None:
    """Return why a buffer has just broken that no trainer learns from, and so nobody fails for."""
    schedules = programs.system.trainers.values()
    learned = {source.buffer for schedule in schedules for source in schedule.sources.values()}
    return next((error for name, error in after.items() if name not in before and name not in learned), None)


def drain(programs: Programs, learner: LearnerState, cells: Cells, clock: Clock) -> LearnerState:
    """Return the state with all that was collected moved into the buffers.

    A buffer that must not change within a run is left alone while a run on it is under way. One whose `add` raises is
    broken: what was in it may be lost, and what comes for it is dropped from then on.

    Args:
        programs: the compiled system.
        learner: the state before; the buffers in it are donated.
        cells: where the records are.
        clock: for when they were added.
    """
    held = held_buffers(programs, learner)
    for name, collector in cells.collectors.items():
        if name in held:
            continue
        # Only what waits now: the other thread goes on collecting, and each record alone would cost a program.
        waiting = collector.counts.pending
        while waiting > 0 and (chunk := collector.drain()) is not None:
            waiting -= chunk.count
            if name in learner.broken:
                continue
            buffer = learner.buffers[name]
            try:
                with named(f"add of buffer {name!r}"):
                    state = programs.add[name](buffer.state, chunk)
            except WorkerError as error:
                learner = learner._replace(broken={**learner.broken, name: error})
                continue
            inserted, newest_ms = buffer.inserted + chunk.count, int(clock.now() * 1000)
            size = programs.size(name, state, inserted)
            learner = learner.with_buffer(name, BufferRun(state, inserted, newest_ms, size))
    return learner


class _Work(NamedTuple):
    programs: Programs
    cells: Cells
    clock: Clock
    observe: Observe
    name: str
    now: Mapping[str, Progress]
    overlaps: bool

    @property
    def schedule(self) -> Schedule:
        return self.programs.system.trainers[self.name]

    @property
    def trainer(self) -> TrainerPrograms[Any]:
        return self.programs.trainers[self.name]


def _move(work: _Work, run: TrainerRun, event: TrainerEvent) -> TrainerRun:
    phase = transition(run.phase, event)
    work.observe(work.name, run.phase, event, phase)
    return run._replace(phase=phase)


def _advance(work: _Work, learner: LearnerState) -> tuple[LearnerState, TrainReport]:
    """Do one chunk, and what belongs before the first and after the last."""
    policy = work.programs.faults
    run = keep_good(policy, learner.trainers[work.name])
    metrics, version, skips = {}, None, 0
    try:
        if run.phase is TrainerPhase.WAITING:
            run = _move(work, run, TrainerEvent.START)
            run = _set_up(work, learner, run)
            run = _move(work, run, TrainerEvent.SET_UP)
        run, metrics = _train(work, learner, run)
        is_last = run.chunk * work.trainer.steps >= work.schedule.steps
        metrics, given = take_priorities(metrics)
        if work.overlaps and not is_last and work.trainer.is_traced and metrics:
            learner = learner._replace(under_way=UnderWay(work.name, metrics))
        else:
            _wait(work, learner, run, metrics)
        learner = _store(work, learner, given)
        if (read := work.programs.skips.get(work.name)) is not None:
            skips = check_updates(policy, work.name, read(run.state))
        if not is_last:
            run = _move(work, run, TrainerEvent.CHUNK_DONE)
            return learner.with_trainer(work.name, run), TrainReport(work.name, metrics)
        run = _move(work, run, TrainerEvent.STEPS_DONE)
        learner, version = _publish(work, learner, run)
        run = _move(work, run, TrainerEvent.PUBLISHED)
        run = run._replace(state=work.trainer.teardown(run.state), finished=run.finished + 1)
        reason = "its run has just ended" + group_note(work.programs, learner, work.name)
        run = end_of_run(policy, _move(work, run, TrainerEvent.TORN_DOWN)._replace(reason=reason), skips)
        return learner.with_trainer(work.name, run), TrainReport(work.name, metrics, version)
    except (Exception, SystemExit, GeneratorExit) as raised:  # the user's code: it concerns this trainer alone
        error = raised if isinstance(raised, Exception) else RuntimeError(f"it raised {raised!r}")
        error.add_note(f"while it was {run.phase}")
        return _failed(work, learner, run, policy, TrainReport(work.name, metrics, version, error=error))


def _failed(
    work: _Work, learner: LearnerState, run: TrainerRun, policy: FaultPolicy, report: TrainReport
) -> tuple[LearnerState, TrainReport]:
    """Have a trainer begin anew or end, as the policy says of the report's error."""
    assert report.error is not None
    failed = after_failure(policy, work.name, run, report.error, work.clock.now())
    run = _move(work, failed.run, failed.event)
    return learner.with_trainer(work.name, run), report._replace(error=failed.error)


def _fail(work: _Work, learner: LearnerState, error: Exception) -> tuple[LearnerState, TrainReport]:
    """Have a trainer fail that could not be asked, or whose buffer is broken: then for good, for no state helps."""
    policy = work.programs.faults
    run = keep_good(policy, learner.trainers[work.name])
    if broken_for(work.programs, learner, work.name) is not None:
        policy = policy._replace(restarts=0)
    return _failed(work, learner, run, policy, TrainReport(work.name, error=error))


def _set_up(work: _Work, learner: LearnerState, run: TrainerRun) -> TrainerRun:
    """Begin a run: take over what other trainers made of the models, and note what counts as new from here on."""
    state = run.state
    if taken := taken_over(work.programs.system, work.name, learner.models):
        state = work.schedule.trainer.receive(state, taken)
    with named(f"condition of trainer {work.name!r}"):
        last = {
            key: source.condition.settle(work.now[key], run.last.get(key, Progress()))
            for key, source in work.schedule.sources.items()
        }
    return run._replace(
        state=work.trainer.setup(state),
        runs=run.runs + 1,
        chunk=0,
        chunk_steps=work.trainer.steps,
        last=last,
        after={name: learner.trainers[name].finished for name in work.schedule.after},
    )


def _train(work: _Work, learner: LearnerState, run: TrainerRun) -> tuple[TrainerRun, Metrics]:
    trainer = work.trainer
    if work.programs.check_donation:
        in_use = (dict(work.cells.store.latest.params), dict(learner.models))
        check_not_donated(in_use, trainer.plan.donated_part(run.state))
    buffers = {key: learner.buffers[source.buffer].state for key, source in work.schedule.sources.items()}
    position, number = _place(work, run)
    if trainer.gather is None:
        data = buffers
    else:
        data = trainer.gather(buffers, position, run.data_key, number) if run.prefetched is None else run.prefetched
    state, metrics = trainer.chunk(run.state, data, position, run.data_key, number)
    prefetched = _prefetch(work, run, buffers, metrics)
    steps = run.steps + trainer.steps
    return run._replace(state=state, chunk=run.chunk + 1, steps=steps, prefetched=prefetched), metrics


def _wait(work: _Work, learner: LearnerState, run: TrainerRun, metrics: Metrics) -> None:
    """Return when a chunk is computed, and has left alive what others read."""
    is_one_program = work.trainer.is_traced and metrics  # what it returns is there all at once
    jax.block_until_ready(metrics if is_one_program else (run.state, metrics))
    if not work.schedule.trainer.compiled:
        for params in (work.cells.store.latest.params, learner.models):
            check_alive(dict(params))


def _prefetch(work: _Work, run: TrainerRun, buffers: PyTree, metrics: Metrics) -> PyTree:
    """Start gathering the batches of the run's next chunk, while the present one is computed."""
    trainer = work.trainer
    is_last = (run.chunk + 1) * trainer.steps >= work.schedule.steps
    # Priorities name slots of the buffer: records that come in before they are stored would take their places.
    if trainer.gather is None or is_last or PRIORITIES in metrics:
        return None
    position, number = _place(work, run)
    return trainer.gather(buffers, position + trainer.steps, run.data_key, number)


def _place(work: _Work, run: TrainerRun) -> tuple[int, int]:
    """Return the number of the next chunk's first batch, and that of the run that it counts from."""
    if work.programs.system.goes_on(work.name):
        return run.steps, NO_RUN
    return run.chunk * work.trainer.steps, run.runs - 1


def _store(work: _Work, learner: LearnerState, given: Mapping[str, RecordPriorities]) -> LearnerState:
    """Give the records of a chunk's batches the priorities that its steps returned."""
    for key, priorities in given.items():
        name = work.schedule.sources[key].buffer
        buffer = learner.buffers[name]
        state = work.programs.update[name](buffer.state, priorities)
        learner = learner.with_buffer(name, buffer._replace(state=state))
    return learner


def with_newest(pending: Mapping[str, Mapping[str, Params]], params: Mapping[str, Params]) -> dict[str, Any]:
    """Return what waits for the rest of its group, by trainer, with models that have been trained further since.

    Args:
        pending: models by name, by the trainer that has made them.
        params: newer models by name.

    Example:
        >>> with_newest({"a": {"m": 1, "n": 1}, "b": {"n": 1}}, {"m": 2})
        {'a': {'m': 2, 'n': 1}, 'b': {'n': 1}}
    """
    return {
        trainer: {model: params.get(model, value) for model, value in models.items()}
        for trainer, models in pending.items()
    }


def _publish(work: _Work, learner: LearnerState, run: TrainerRun) -> tuple[LearnerState, int | None]:
    """Hand on what was trained, and publish it, or keep it until the rest of the group is there."""
    system, name, group = work.programs.system, work.name, work.schedule.group
    given = work.trainer.publish(run.state)
    params = published_params(system, name, given)
    handed = handed_on(system, name, run.state, given)
    check_results(params, handed)
    if handed or learner.pending:
        pending = {other: with_newest(members, params) for other, members in learner.pending.items()}
        learner = learner._replace(models={**learner.models, **handed}, pending=pending)
    if group is not None:
        ready = {**learner.pending.get(group, {}), name: params}
        is_complete = all(schedule.group != group or member in ready for member, schedule in system.trainers.items())
        learner = learner._replace(pending={**learner.pending, group: {} if is_complete else ready})
        if not is_complete:
            return learner, None
        params = {model: value for member in system.trainers for model, value in ready.get(member, {}).items()}
    if not params:
        return learner, None
    snapshot = work.cells.store.publish(params, step=run.steps, published_at=work.clock.now())
    return learner, snapshot.version
