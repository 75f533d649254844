"""What a scanned run carries from tick to tick: the values of a system, every one of them an array."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax.conditions import Progress
from pamiq_jax.lifecycle import TrainerPhase
from pamiq_jax.publishing import Snapshot
from pamiq_jax.runtime.programs import Ready
from pamiq_jax.runtime.state import ActorState, BufferRun, LearnerState, TrainerRun
from pamiq_jax.types import Params, PyTree

NOT_FINITE, TOO_MANY_SKIPS = 1, 2
"""Why a trainer has failed, as `ScannedTrainer.failure`; 0 is that it has not."""


class ScannedTrainer(NamedTuple):
    """`TrainerRun`, traced. The counters are int32 `[]`."""

    state: PyTree
    data_key: jax.Array
    is_training: jax.Array
    failure: jax.Array
    runs: jax.Array
    chunk: jax.Array
    finished: jax.Array
    steps: jax.Array
    last: Mapping[str, Progress]
    after: Mapping[str, jax.Array]


class ScannedLearner(NamedTuple):
    """What a training tick changes, all but the buffers.

    Attributes:
        trainers: by name.
        models: what trainers hand on to each other.
        pending: what trainers of a group have ready, by trainer, and whether they do.
        params: the newest snapshot's.
        version: of it.
        step: of it.
        published: number of the round that it was published in; -1 for none of this run.
        turn: which trainer is asked first next time.
    """

    trainers: Mapping[str, ScannedTrainer]
    models: Mapping[str, Params]
    pending: Mapping[str, tuple[jax.Array, Mapping[str, Params]]]
    params: Mapping[str, Params]
    version: jax.Array
    step: jax.Array
    published: jax.Array
    turn: jax.Array


class ScannedBuffer(NamedTuple):
    """`BufferRun`, traced, and how many records were collected for it."""

    state: PyTree
    inserted: jax.Array
    newest_ms: jax.Array
    seen: jax.Array


class ScannedActor(NamedTuple):
    """`ActorState`, traced, and the world that it acts in.

    Attributes:
        has_gap: whether the next record does not follow the one before it.
    """

    world: PyTree
    carry: PyTree
    resets: PyTree
    tick: jax.Array
    has_gap: jax.Array


class Scanned(NamedTuple):
    """All of it."""

    actor: ScannedActor
    buffers: Mapping[str, ScannedBuffer]
    learner: ScannedLearner


class Moment(NamedTuple):
    """What a round is told: its number, and the time as the virtual clock has it. int32 `[]` each."""

    round: jax.Array
    time_ms: jax.Array
    second_of_day: jax.Array


def first_scanned(ready: Ready, learner: LearnerState, actor: ActorState, interaction: str, world: PyTree) -> Scanned:
    """Return the values that a scanned run begins with.

    Args:
        ready: the system, ready to run.
        learner: the training side's state.
        actor: the inference side's.
        interaction: its name.
        world: the environment's state.
    """
    collectors, system = ready.cells.collectors, ready.compiled.programs.system
    fed = list(system.collects(interaction))
    gaps = [bool(collectors[name].pending_records().has_gap) for name in fed]
    resets = jax.tree.map(jnp.asarray, actor.resets)
    snapshot = ready.cells.store.latest
    return Scanned(
        ScannedActor(world, actor.carry, resets, _count(actor.tick), jnp.array(any(gaps))),
        {
            name: ScannedBuffer(
                run.state, _count(run.inserted), _count(run.newest_ms), _count(collectors[name].counts.seen)
            )
            for name, run in learner.buffers.items()
        },
        ScannedLearner(
            {name: _scanned_trainer(run) for name, run in learner.trainers.items()},
            dict(learner.models),
            _first_pending(ready, learner),
            dict(snapshot.params),
            _count(snapshot.version),
            _count(snapshot.step),
            _count(-1),
            _count(learner.turn),
        ),
    )


def _count(number: int) -> jax.Array:
    return jnp.asarray(np.int32(number))


def _scanned_trainer(run: TrainerRun) -> ScannedTrainer:
    return ScannedTrainer(
        run.state,
        run.data_key,
        jnp.array(run.phase is TrainerPhase.TRAINING),
        _count(0),
        _count(run.runs),
        _count(run.chunk),
        _count(run.finished),
        _count(run.steps),
        {key: Progress(*map(_wrapped, progress)) for key, progress in run.last.items()},
        {name: _count(finished) for name, finished in run.after.items()},
    )


def _wrapped(count: Any) -> jax.Array:
    return jnp.asarray(np.int64(count).astype(np.int32))  # conditions take differences of counters: those stay right


def _first_pending(ready: Ready, learner: LearnerState) -> dict[str, tuple[jax.Array, Mapping[str, Params]]]:
    system = ready.compiled.programs.system
    result: dict[str, tuple[jax.Array, Mapping[str, Params]]] = {}
    for name, schedule in system.trainers.items():
        if schedule.group is not None:
            published = {model: ready.cells.store.latest.params[model] for model in system.published_by(name)}
            waiting = learner.pending.get(schedule.group, {}).get(name)
            result[name] = jnp.array(waiting is not None), dict(published if waiting is None else waiting)
    return result


def learner_of(ready: Ready, scanned: Scanned) -> LearnerState:
    """Return the training side's state as the other drivers have it.

    Args:
        ready: what the run began from.
        scanned: how it ended, fetched as far as it is counters.
    """
    learner, programs = scanned.learner, ready.compiled.programs
    system = programs.system
    pending: dict[str, dict[str, Mapping[str, Params]]] = {}
    for name, (is_there, params) in learner.pending.items():
        members = pending.setdefault(str(system.trainers[name].group), {})
        if is_there:
            members[name] = params
    return LearnerState(
        {name: _trainer_run(learner.trainers[name], schedule.chunk) for name, schedule in system.trainers.items()},
        {
            name: BufferRun(
                run.state, int(run.inserted), int(run.newest_ms), programs.size(name, run.state, int(run.inserted))
            )
            for name, run in ((name, scanned.buffers[name]) for name in system.buffers)
        },
        learner.models,
        pending,
        turn=int(learner.turn),
    )


def _trainer_run(run: ScannedTrainer, chunk: int) -> TrainerRun:
    return TrainerRun(
        run.state,
        run.data_key,
        TrainerPhase.TRAINING if run.is_training else TrainerPhase.WAITING,
        int(run.runs),
        int(run.chunk),
        int(run.finished),
        int(run.steps),
        last={key: progress.as_ints() for key, progress in run.last.items()},
        after={name: int(finished) for name, finished in run.after.items()},
        chunk_steps=chunk if run.runs else 0,
    )


def actor_of(scanned: Scanned, rng_key: jax.Array) -> ActorState:
    """Return the inference side's state as the other drivers have it.

    Args:
        scanned: how the run ended.
        rng_key: the actor's.
    """
    actor = scanned.actor
    return ActorState(actor.carry, rng_key, int(actor.tick), jax.tree.map(np.asarray, actor.resets))


def snapshot_of(scanned: Scanned, before: Snapshot, seconds: np.ndarray[Any, Any]) -> Snapshot:
    """Return the newest snapshot.

    Args:
        scanned: how the run ended.
        before: the newest one when it began.
        seconds: on the clock, of each round, `[rounds]`.
    """
    learner = scanned.learner
    number = int(learner.published)
    published_at = before.published_at if number < 0 else float(seconds[number])
    return Snapshot.of(learner.params)._replace(
        version=int(learner.version), step=int(learner.step), published_at=published_at
    )
