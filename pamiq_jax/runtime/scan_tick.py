"""The two ticks as pure functions of arrays, for a program that is a whole run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax import trees
from pamiq_jax.conditions import Condition, Progress
from pamiq_jax.data import Record
from pamiq_jax.errors import RecordMismatchError
from pamiq_jax.publishing.finite import all_finite
from pamiq_jax.runtime.acting import acting_function
from pamiq_jax.runtime.agent import Agent
from pamiq_jax.runtime.batches import sample_function
from pamiq_jax.runtime.compile import handed_on, publish_function, published_params, taken_over
from pamiq_jax.runtime.environment import WorldFunctions
from pamiq_jax.runtime.scan_state import (
    NOT_FINITE,
    TOO_MANY_SKIPS,
    Moment,
    Scanned,
    ScannedActor,
    ScannedBuffer,
    ScannedLearner,
    ScannedTrainer,
)
from pamiq_jax.runtime.system import Schedule, System
from pamiq_jax.runtime.train import with_newest
from pamiq_jax.trainer import needs_rollback
from pamiq_jax.trainer.compile import scan_chunk
from pamiq_jax.trainer.drawing import drawing_key
from pamiq_jax.trainer.priorities import take_priorities
from pamiq_jax.types import Metrics, Params, PyTree


class ScanPrograms(NamedTuple):
    """A system as it is traced.

    Attributes:
        system: it.
        interaction: the name of its interaction.
        world: the environment's functions.
        agent: the agent.
        rng_key: the actor's.
        examples: the form of each buffer's records.
        bad_updates: so many updates in a row that a guard skipped are a failure; None: they never are.
    """

    system: System
    interaction: str
    world: WorldFunctions
    agent: Agent[Any]
    rng_key: jax.Array
    examples: Mapping[str, PyTree]
    bad_updates: int | None


def scanned_infer(
    programs: ScanPrograms, actor: ScannedActor, params: Mapping[str, Params], version: jax.Array
) -> tuple[ScannedActor, dict[str, Record[Any]]]:
    """Observe, act, affect: what `infer_tick` does. Return the record of each buffer instead of collecting it.

    Args:
        programs: the system.
        actor: before the tick.
        params: the newest snapshot's.
        version: of it.
    """
    observation = programs.world.observe(actor.world)
    words = jnp.stack([jnp.zeros((), jnp.uint32), actor.tick.astype(jnp.uint32)])
    act = acting_function(programs.agent)
    carry, action, extras = act(dict(params), actor.carry, actor.resets, observation, programs.rng_key, words)
    world, feedback = programs.world.affect(actor.world, action)
    record = {"observation": observation, "action": action, **feedback, **extras}
    records = {
        name: Record(_selected(programs, name, select(dict(record))), version, actor.has_gap)
        for name, select in programs.system.collects(programs.interaction).items()
    }
    flag = programs.agent.resets_on
    resets = () if flag is None else jnp.asarray(feedback[flag], jnp.bool_)
    return ScannedActor(world, carry, resets, actor.tick + 1, jnp.zeros((), jnp.bool_)), records


def _selected(programs: ScanPrograms, name: str, record: PyTree) -> PyTree:
    if problem := trees.difference(programs.examples[name], record):
        raise RecordMismatchError(f"buffer {name!r} is fed another record than it was made for: {problem}")
    return jax.tree.map(lambda form, leaf: jnp.asarray(leaf, form.dtype), programs.examples[name], record)


def scanned_drain(
    programs: ScanPrograms, buffers: Mapping[str, ScannedBuffer], records: Mapping[str, PyTree], now: Moment
) -> dict[str, ScannedBuffer]:
    """Return the buffers with a round's records `[n, ...]` added, as many at a time as `train_tick` would.

    Args:
        programs: the system.
        buffers: before.
        records: by buffer.
        now: when.
    """
    result = dict(buffers)
    for name, rows in records.items():
        buffer, state = programs.system.buffers[name], buffers[name].state
        count = jax.tree.leaves(rows)[0].shape[0]
        for start in range(0, count, most := programs.system.rows(name)):
            length = min(most, count - start)
            part = jax.tree.map(lambda leaf, start=start, length=length: leaf[start : start + length], rows)
            state = buffer.add(state, part, np.int32(length))
        run = buffers[name]
        result[name] = ScannedBuffer(state, run.inserted + count, now.time_ms, run.seen + count)
    return result


class Trained(NamedTuple):
    """What a training tick returns.

    Attributes:
        learner: after it.
        updated: states of the buffers that take priorities, by name.
        chosen: which trainer did a chunk, int32 `[]`; the number of trainers if none did.
        metrics: of its chunk, by trainer; zeros for the others.
    """

    learner: ScannedLearner
    updated: dict[str, PyTree]
    chosen: jax.Array
    metrics: dict[str, Metrics]


class TrainTick(NamedTuple):
    """A training tick: at most one chunk of one trainer, as `train_tick` does it.

    Attributes:
        programs: the system.
        scanned: the buffers in it are read.
        now: when.
    """

    programs: ScanPrograms
    scanned: Scanned
    now: Moment

    @property
    def _schedules(self) -> Mapping[str, Schedule]:
        return self.programs.system.trainers

    def run(self) -> Trained:
        """Return what becomes of the learner."""
        names = list(self._schedules)
        able = jnp.stack([self._is_able(name) for name in names])
        # The highest priority goes first; of equal ones the next in turn, since nobody has used time on this clock.
        order = sorted({schedule.priority for schedule in self._schedules.values()}, reverse=True)
        ranks = np.array([order.index(schedule.priority) for schedule in self._schedules.values()], np.int32)
        turns = (jnp.arange(len(names), dtype=jnp.int32) - self.scanned.learner.turn) % len(names)
        places = jnp.where(able, jnp.asarray(ranks * len(names)) + turns, len(names) * len(names))
        chosen = jnp.where(jnp.any(able), jnp.argmin(places).astype(jnp.int32), len(names))
        nothing = self._nothing(names)
        branches = [partial(self._advance, name, nothing, number) for number, name in enumerate(names)]
        trained = jax.lax.switch(chosen, [*branches, lambda: nothing])
        return trained._replace(chosen=chosen)

    def _nothing(self, names: list[str]) -> Trained:
        metrics = {name: take_priorities(jax.eval_shape(partial(self._chunk, name))[1])[0] for name in names}
        zeros = jax.tree.map(lambda form: jnp.zeros(form.shape, form.dtype), metrics)
        return Trained(self.scanned.learner, self._updated(), jnp.int32(len(names)), zeros)

    def _updated(self) -> dict[str, PyTree]:
        used = {source.buffer for schedule in self._schedules.values() for source in schedule.sources.values()}
        takers = [name for name in self.programs.system.buffers if self.programs.system.buffers[name].update]
        return {name: self.scanned.buffers[name].state for name in takers if name in used}

    def _progress(self, name: str) -> dict[str, Progress]:
        run, result = self.scanned.learner.trainers[name], dict[str, Progress]()
        for key, source in self._schedules[name].sources.items():
            buffer = self.scanned.buffers[source.buffer]
            result[key] = Progress(
                size=self._size(source.buffer),
                seen=buffer.seen,
                inserted=buffer.inserted,
                sampled=run.steps * source.batch_size,
                steps=run.steps,
                time_ms=self.now.time_ms,
                second_of_day=self.now.second_of_day,
                busy_ms=jnp.zeros((), jnp.int32),
                newest_ms=buffer.newest_ms,
                forgiven=jnp.zeros((), jnp.int32),
                versions=self.scanned.learner.version,
            )
        return result

    def _size(self, name: str) -> jax.Array:
        """Return how many records a buffer holds: the newest state of one that is asked is where priorities go."""
        buffer, run = self.programs.system.buffers[name], self.scanned.buffers[name]
        return jnp.minimum(run.inserted, buffer.capacity) if buffer.keeps_all else buffer.size(run.state)

    def _is_able(self, name: str) -> jax.Array:
        run = self.scanned.learner.trainers[name]
        return (run.failure == 0) & (run.is_training | self._may_begin(name))

    def _may_begin(self, name: str) -> jax.Array:
        system, trainers = self.programs.system, self.scanned.learner.trainers
        run, schedule, now = trainers[name], self._schedules[name], self._progress(name)
        holds = [trainers[other].finished > run.after[other] for other in schedule.after]
        trained = set(system.trained_by(name))
        holds += [
            ~trainers[other].is_training
            for other in trainers
            if other != name and trained & set(system.trained_by(other))
        ]
        for key, source in schedule.sources.items():
            buffer = system.buffers[source.buffer]
            holds += [
                truth(source.condition, now[key], run.last[key]),
                now[key].size >= buffer.required(source.batch_size),
                now[key].inserted - run.last[key].inserted >= buffer.fresh,
            ]
            if buffer.can_sample is not None:
                holds.append(buffer.can_sample(self.scanned.buffers[source.buffer].state))
        return jnp.all(jnp.stack(holds))

    def _chunk(self, name: str, run: ScannedTrainer | None = None) -> tuple[PyTree, Metrics]:
        schedule = self._schedules[name]
        run = self.scanned.learner.trainers[name] if run is None else run
        states = {key: self.scanned.buffers[source.buffer].state for key, source in schedule.sources.items()}
        chunk = scan_chunk(schedule.trainer, sample_function(self.programs.system, schedule), schedule.chunk)
        if self.programs.system.goes_on(name):
            return chunk(run.state, states, run.steps, run.data_key)
        rng_key = drawing_key(run.data_key, run.runs - 1)
        return chunk(run.state, states, run.chunk * schedule.chunk, rng_key)

    def _advance(self, name: str, nothing: Trained, number: int) -> Trained:
        """Do one chunk, and what belongs before the first and after the last."""
        schedule, learner = self._schedules[name], self.scanned.learner
        is_whole = schedule.chunk == schedule.steps  # each chunk is a run then: nothing of this is decided when it runs
        run = learner.trainers[name]
        run = _when(is_whole or ~run.is_training, partial(self._set_up, name), run)
        state, metrics = self._chunk(name, run)
        metrics, given = take_priorities(metrics)
        run = run._replace(state=state, chunk=run.chunk + 1, steps=run.steps + schedule.chunk)
        if self.programs.bad_updates is not None:
            is_bad = needs_rollback(run.state, self.programs.bad_updates)
            run = run._replace(failure=jnp.where(is_bad, TOO_MANY_SKIPS, 0).astype(jnp.int32))
        learner = learner._replace(
            trainers={**learner.trainers, name: run}, turn=jnp.int32((number + 1) % len(self._schedules))
        )
        ends = (run.failure == 0) & (is_whole | (run.chunk * schedule.chunk >= schedule.steps))
        learner = _when(ends, partial(self._end, name), learner)
        return Trained(
            learner, self._stored(name, nothing.updated, given), nothing.chosen, {**nothing.metrics, name: metrics}
        )

    def _stored(self, name: str, updated: dict[str, PyTree], given: Mapping[str, Any]) -> dict[str, PyTree]:
        for key, priorities in given.items():
            buffer = self._schedules[name].sources[key].buffer
            update = self.programs.system.buffers[buffer].update
            assert update is not None, "who takes no priorities was found out when the step was checked"
            updated = {**updated, buffer: update(updated[buffer], *priorities)}
        return updated

    def _set_up(self, name: str, run: ScannedTrainer) -> ScannedTrainer:
        system, schedule, learner = self.programs.system, self._schedules[name], self.scanned.learner
        trainer, state, now = schedule.trainer, run.state, self._progress(name)
        if taken := taken_over(system, name, learner.models):
            state = trainer.receive(state, taken)
        return run._replace(
            state=trainer.setup(state),
            is_training=jnp.ones((), jnp.bool_),
            runs=run.runs + 1,
            chunk=jnp.zeros((), jnp.int32),
            last={key: _settled(source.condition, now[key], run.last[key]) for key, source in schedule.sources.items()},
            after={other: learner.trainers[other].finished for other in schedule.after},
        )

    def _end(self, name: str, learner: ScannedLearner) -> ScannedLearner:
        """Publish a run's outcome, if it is finite, and tear the run down."""
        system, run = self.programs.system, learner.trainers[name]
        given = publish_function(system, name)(run.state)
        params = published_params(system, name, given)
        handed = handed_on(system, name, run.state, given)
        is_good = all_finite((params, handed))
        ended = run._replace(
            state=self._schedules[name].trainer.teardown(run.state),
            finished=run.finished + 1,
            is_training=jnp.zeros((), jnp.bool_),
        )
        good = learner._replace(models={**learner.models, **handed})
        good = self._published(name, good, params, run.steps)
        good = good._replace(trainers={**good.trainers, name: ended})
        failed = run._replace(failure=jnp.int32(NOT_FINITE))
        bad = learner._replace(trainers={**learner.trainers, name: failed})
        return jax.tree.map(partial(jnp.where, is_good), good, bad)

    def _published(
        self, name: str, learner: ScannedLearner, params: Mapping[str, Params], step: jax.Array
    ) -> ScannedLearner:
        schedules, group = self._schedules, self._schedules[name].group
        newest = with_newest({other: waiting for other, (_, waiting) in learner.pending.items()}, params)
        pending = {other: (is_ready, newest[other]) for other, (is_ready, _) in learner.pending.items()}
        learner = learner._replace(pending=pending)
        is_complete = jnp.ones((), jnp.bool_)
        if group is not None:
            pending = {**learner.pending, name: (is_complete, params)}
            members = [member for member in schedules if schedules[member].group == group]
            is_complete = jnp.all(jnp.stack([pending[member][0] for member in members]))
            params = {model: value for member in members for model, value in pending[member][1].items()}
            pending |= {member: (pending[member][0] & ~is_complete, pending[member][1]) for member in members}
            learner = learner._replace(pending=pending)
        if not params:
            return learner
        new = learner._replace(
            params={**learner.params, **params}, version=learner.version + 1, step=step, published=self.now.round
        )
        return new if group is None else jax.tree.map(partial(jnp.where, is_complete), new, learner)


def _when[T](condition: bool | jax.Array, change: Callable[[T], T], value: T) -> T:
    if condition is True:
        return change(value)
    return jax.lax.cond(condition, change, lambda value: value, value)


def truth(condition: Condition, now: Progress, last: Progress) -> jax.Array:
    """Return a condition's answer, traced, bool `[]`."""
    return jnp.asarray(condition.test(now, last), jnp.bool_)


def _settled(condition: Condition, now: Progress, last: Progress) -> Progress:
    forgiven = jnp.asarray(condition.forgive(now, last), jnp.int32)
    return now._replace(forgiven=last.forgiven + forgiven)
