"""Where a trainer's batches come from, compiled: buffers beside it, or in the host's memory; and what they get back."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import jax
import numpy as np

from pamiq_jax.data import Buffer, PrioritizedBatch, Record
from pamiq_jax.errors import InvalidValueError, StepStructureError
from pamiq_jax.runtime.state import BufferRun, TrainerRun
from pamiq_jax.runtime.system import Schedule, System
from pamiq_jax.trainer import SampleFn, Trainer, TrainerPrograms, compile_trainer
from pamiq_jax.trainer.drawing import NO_RUN, place_of, sample_at
from pamiq_jax.trainer.priorities import PRIORITIES, Drawn, RecordPriorities, split_drawn
from pamiq_jax.types import PyTree

type UpdateFn = Callable[[PyTree, RecordPriorities], PyTree]
"""`(buffer state, priorities [steps, B]) -> buffer state`, compiled; donates the state, wherever the priorities are."""


def compile_schedule(
    system: System,
    name: str,
    trainer: Trainer[Any, Any],
    run: TrainerRun,
    buffers: Mapping[str, BufferRun],
    *,
    donates: bool = True,
) -> TrainerPrograms[Any]:
    """Return a trainer's programs on the buffers of its schedule.

    Args:
        system: the system.
        name: the trainer's name.
        trainer: the trainer, publishing as its models ask for.
        run: with its first state.
        buffers: with their first states, by name.
        donates: whether a chunk writes over what nobody else reads of the trainer's state.

    Raises:
        InvalidValueError: some of its buffers are on the host and others are not, or a buffer that takes priorities
            does not say in its batches which records they are of.
        StepStructureError: the step returns a state or metrics of another form than it must.
    """
    schedule = system.trainers[name]
    states = {key: buffers[source.buffer].state for key, source in schedule.sources.items()}
    on_host = {key for key, source in schedule.sources.items() if system.buffers[source.buffer].placement == "host"}
    sample = sample_function(system, schedule)
    compile_with = functools.partial(
        compile_trainer, trainer, state=run.state, steps=schedule.chunk, donates=donates, copies=schedule.has_chunks
    )
    if not on_host:
        return compile_with(sample=sample, buffer_state=states)
    if on_host != set(schedule.sources):
        raise InvalidValueError(
            f"trainer {name!r} data", sorted(on_host), "all of its buffers placed alike", "give them one `placement`"
        )
    return _compile_with_host_data(compile_with, sample, run, states, schedule.chunk)


def sample_function(system: System, schedule: Schedule) -> SampleFn:
    """Return what draws a batch from the states of a schedule's buffers, given by source name.

    Args:
        system: the system.
        schedule: of one of its trainers.
    """
    prepare: Callable[[Any], PyTree] | None = schedule.prepare
    buffers = {key: system.buffers[source.buffer] for key, source in schedule.sources.items()}
    is_updated = any(buffer.update is not None for buffer in buffers.values())

    def sample(states: PyTree, position: jax.Array, rng_key: jax.Array, /) -> PyTree:
        records: dict[str, Any] = {}
        for number, (key, source) in enumerate(schedule.sources.items()):
            source_key = rng_key if not number else jax.random.fold_in(rng_key, number)
            records[key] = buffers[key].sample(states[key], source.batch_size, position, source_key)
        indices = {
            key: None if buffer.update is None else _indices_of(schedule.sources[key].buffer, records[key])
            for key, buffer in buffers.items()
        }
        if prepare is None:
            records = {key: data_of(drawn) for key, drawn in records.items()}
        batch = records.get("", records)
        batch = batch if prepare is None else prepare(batch)
        return Drawn(batch, indices) if is_updated else batch

    return sample


def _indices_of(name: str, drawn: Any) -> jax.Array:
    if not hasattr(drawn, "indices"):
        expected = "a batch with the field `indices`, since the buffer has `update`"
        raise InvalidValueError(f"buffer {name!r} sample", type(drawn).__name__, expected, "return a PrioritizedBatch")
    return drawn.indices


def data_of(drawn: Any) -> Any:
    """Return what was drawn of a buffer, but of records only their data: what a step gets by default.

    Example:
        >>> data_of(Record("data", 3)), data_of(PrioritizedBatch(Record("data", 3), "indices", "weights"))
        ('data', PrioritizedBatch(records='data', indices='indices', weights='weights'))
    """
    if isinstance(drawn, PrioritizedBatch):
        return drawn._replace(records=data_of(drawn.records))
    return drawn.data if isinstance(drawn, Record) else drawn


def _compile_with_host_data(
    compile_with: Callable[..., TrainerPrograms[Any]], sample: SampleFn, run: TrainerRun, states: PyTree, steps: int
) -> TrainerPrograms[Any]:
    """Gather a chunk's batches on the host in one program, and move them to the trainer in one transfer.

    Both are only started: XLA's own threads do the work, and whoever reads the batches waits for them. A state that is
    donated meanwhile is written to only when the gathering is over, which XLA sees to.
    """
    offsets = np.array([(offset, 0) for offset in range(steps)], np.int32)

    def draw(states: PyTree, place: jax.Array, rng_key: jax.Array) -> PyTree:
        return jax.vmap(lambda offset: sample_at(sample)(states, place + offset, rng_key))(offsets)

    def take(batches: PyTree, position: jax.Array, rng_key: jax.Array, /) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[position], batches)

    host = next(iter(jax.tree.leaves(states)[0].devices()))
    device = next(iter(run.data_key.devices()))
    program = jax.jit(draw).lower(states, place_of(), jax.device_put(run.data_key, host)).compile()

    def gather(states: PyTree, position: Any, rng_key: jax.Array, run: int = NO_RUN, /) -> PyTree:
        return jax.device_put(program(states, place_of(position, run), jax.device_put(rng_key, host)), device)

    batches = gather(states, 0, run.data_key)
    programs = compile_with(sample=take, buffer_state=batches)

    def chunk(state: Any, batches: PyTree, position: Any, rng_key: jax.Array, run: int = NO_RUN, /) -> Any:
        return programs.chunk(state, batches, 0, rng_key)  # they begin at `position` already

    return programs._replace(chunk=chunk, gather=gather)


def check_priorities_come(system: System, runs: Mapping[str, TrainerRun], buffers: Mapping[str, BufferRun]) -> None:
    """Raise if no trainer gives a buffer the priorities that it samples by: all records would stay alike.

    What a trainer that is not traced returns is not known before.

    Args:
        system: the system.
        runs: with the trainers' first states, by name.
        buffers: with their first states, by name.

    Raises:
        StepStructureError: naming the buffer, its trainers, and what their steps should return.
    """
    for buffer, part in system.buffers.items():
        users = [
            name for name in runs if buffer in {source.buffer for source in system.trainers[name].sources.values()}
        ]
        if part.update is None or not users or not all(system.trainers[name].trainer.compiled for name in users):
            continue
        if not any(buffer in _gives_to(system, system.trainers[name], runs[name], buffers) for name in users):
            raise StepStructureError(
                f"buffer {buffer!r} samples by priorities, but no step of {', '.join(map(repr, users))} returns any; "
                'return the metric "priorities", float32 [B], for example jnp.abs(errors); or use a ring_buffer'
            )


def _gives_to(system: System, schedule: Schedule, run: TrainerRun, buffers: Mapping[str, BufferRun]) -> frozenset[str]:
    """Return the buffers that a trainer's step gives priorities to."""
    states = {key: buffers[source.buffer].state for key, source in schedule.sources.items()}
    drawn = jax.eval_shape(sample_function(system, schedule), states, np.int32(0), run.data_key)
    metrics = jax.eval_shape(schedule.trainer.step, run.state, split_drawn(drawn)[0])[1]
    given: Any = metrics.get(PRIORITIES, {})
    keys = given if isinstance(given, Mapping) else ("",)
    return frozenset(schedule.sources[key].buffer for key in cast(Iterable[str], keys))


def compile_updates(system: System, buffers: Mapping[str, BufferRun], *, donates: bool = True) -> dict[str, UpdateFn]:
    """Return, by the names of the buffers that take priorities and are learned from, what stores them.

    Args:
        system: the system.
        buffers: with their first states, by name.
        donates: whether the buffer is written over; False for a run that saves, which may just be reading it.
    """
    sizes: dict[str, set[tuple[int, int]]] = {}
    for schedule in system.trainers.values():
        for source in schedule.sources.values():
            if system.buffers[source.buffer].update is not None:
                sizes.setdefault(source.buffer, set()).add((schedule.chunk, source.batch_size))
    return {name: _compile_update(system.buffers[name], buffers[name].state, sizes[name], donates) for name in sizes}


def _compile_update(
    buffer: Buffer[Any, Any, Any], state: PyTree, sizes: set[tuple[int, int]], donates: bool
) -> UpdateFn:
    """Return what stores the priorities of a chunk; compiled for each size `(steps, B)` that a trainer has."""
    assert buffer.update is not None
    device = next(iter(jax.tree.leaves(state)[0].devices()))
    update = jax.jit(buffer.update, donate_argnums=(0,) if donates else ())
    programs: dict[tuple[int, ...], Callable[..., PyTree]] = {}
    for steps, batch_size in sorted(sizes):
        one = jax.eval_shape(lambda state: buffer.sample(state, batch_size, 0, jax.random.key(0)).indices, state)  # noqa: B023 - used at once
        shape = (steps, *one.shape)
        zeros = jax.device_put((np.zeros(shape, np.int32), np.zeros(shape, np.float32)), device)
        programs[shape] = update.lower(state, *zeros).compile()

    def store(state: PyTree, given: RecordPriorities) -> PyTree:
        return programs[np.shape(given.indices)](state, *jax.device_put(given, device))

    return store
