"""Everything that is compiled, compiled before the agent starts."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax.data import Buffer, Chunk, Record, record_spec, to_device
from pamiq_jax.errors import InvalidValueError, PublishMismatchError
from pamiq_jax.publishing import check_finite
from pamiq_jax.runtime.acting import acting_program, first_actor
from pamiq_jax.runtime.programs import Compiled, Programs
from pamiq_jax.runtime.state import BufferRun, LearnerState, TrainerRun
from pamiq_jax.runtime.system import Schedule, System
from pamiq_jax.trainer import SampleFn, TrainerPrograms, compile_trainer, own
from pamiq_jax.types import Params, PyTree


def compile_system(system: System, *, seed: int = 0, check_donation: bool = False) -> Compiled:
    """Return a system's compiled programs and first states. Nothing of it runs in a thread.

    Args:
        system: what to compile.
        seed: all keys are folded from it and from names, so adding a trainer changes no other's.
        check_donation: have each chunk prove that it deletes no published array.

    Raises:
        InvalidValueError: a buffer's records are not known.
        RecordMismatchError, StepStructureError, PublishMismatchError: forms that do not fit.
        NonFiniteError: initial parameters that are not numbers.

    Example:
        >>> import optax, pamiq_jax as pj
        >>> trainer = pj.gradient_trainer(lambda params, x, key: (jnp.mean((params["m"] - x) ** 2), {}), optax.sgd(0.1))
        >>> system = pj.System(
        ...     models={"m": pj.Model(jnp.zeros(()))},
        ...     buffers={"x": pj.ring_buffer(100, example=0.0)},
        ...     trainers={"t": pj.Schedule(trainer, data="x", batch_size=4, when=pj.min_size(2))},
        ... )
        >>> compiled = compile_system(system)
        >>> programs, learner, cells = compiled.programs, compiled.learner, compiled.cells()
        >>> learner, report = pj.train_tick(programs, learner, cells, pj.VirtualClock())
        >>> learner.trainers["t"].reason
        'has 0 of 2 records'
        >>> kept = [cells.collectors["x"].collect(value, version=0) for value in (1.0, 2.0, 3.0)]
        >>> learner, report = pj.train_tick(programs, learner, cells, pj.VirtualClock())
        >>> report.trainer, report.version
        ('t', 1)
    """
    base = jax.random.key(seed)
    runs = {name: _first_run(system, name, base) for name in system.trainers}
    params = _first_params(system, runs)
    acting, record, actor = None, None, None
    if system.interaction is not None:
        actor = first_actor(system.interaction, _named_key(base, "agent"))
        acting, record = acting_program(system, system.interaction, params, actor)
    examples = {name: _example(system, name, record) for name in system.buffers}
    buffers = {name: _first_buffer(system.buffers[name], example) for name, example in examples.items()}
    programs = Programs(
        system=system,
        acting=acting,
        add={name: _compile_add(system, name, run.state, examples[name]) for name, run in buffers.items()},
        trainers={
            name: _compile_schedule(schedule, system.buffers[schedule.data], runs[name], buffers[schedule.data].state)
            for name, schedule in system.trainers.items()
        },
        fold_in=jax.jit(jax.random.fold_in).lower(base, np.int32(0)).compile(),
        check_donation=check_donation,
    )
    return Compiled(programs, LearnerState(runs, buffers), actor, params, examples)


def _named_key(base: jax.Array, name: str) -> jax.Array:
    return jax.random.fold_in(base, zlib.crc32(name.encode()))


def _first_run(system: System, name: str, base: jax.Array) -> TrainerRun:
    params = {model: system.models[model].params for model in system.trained_by(name)}
    state = own(system.trainers[name].trainer.init(_named_key(base, f"trainer {name}"), params))
    data_key = own(_named_key(base, f"data {name}"))
    return TrainerRun(state=state, data_key=data_key, run_key=data_key)


def _first_params(system: System, runs: Mapping[str, TrainerRun]) -> dict[str, Params]:
    params = {name: own(model.params) for name, model in system.models.items() if model.infer}
    for name, run in runs.items():
        published = published_params(system, name, system.trainers[name].trainer.publish(run.state))
        check_finite(published)  # also compiles the check for this tree
        params.update(published)
    return params


def published_params(system: System, trainer: str, published: Any) -> dict[str, Params]:
    """Return, of what a trainer's publish function gave, the models that inference may see.

    Args:
        system: the system.
        trainer: the trainer's name.
        published: what its `publish` returned.

    Raises:
        PublishMismatchError: it is no dict with the models that the trainer says it publishes.
    """
    names = system.published_by(trainer)
    missing = names if not isinstance(published, Mapping) else [name for name in names if name not in published]
    if missing:
        raise PublishMismatchError(
            f"trainer {trainer!r} publishes {list(names)}, but its `publish` returned no {list(missing)}; "
            "return a dict {model: params}, or name what it does return with `publishes`"
        )
    return {name: published[name] for name in names}


def _example(system: System, name: str, record: dict[str, PyTree] | None) -> PyTree:
    example = system.buffers[name].example
    if example is not None:
        return record_spec(example)
    selectors = system.collects()
    if record is None or name not in selectors:
        raise InvalidValueError(
            f"buffer {name!r} example", None, "one record", "no interaction feeds it: pass `example=`"
        )
    # On arrays, as it will be called: a selector may be plain numpy code.
    zeros = jax.tree.map(lambda spec: np.zeros(spec.shape, spec.dtype), record)
    return record_spec(selectors[name](zeros))


def _device(buffer: Buffer[Any, Any, Any]) -> Any:
    return jax.devices("cpu")[0] if buffer.placement == "host" else own(jnp.zeros(())).devices().pop()


def _first_buffer(buffer: Buffer[Any, Any, Any], example: PyTree) -> BufferRun:
    return BufferRun(jax.device_put(own(buffer.init(Record(example, np.int32(0)))), _device(buffer)))


def _compile_add(system: System, name: str, state: PyTree, example: PyTree) -> Callable[[PyTree, Chunk[Any]], PyTree]:
    buffer, rows = system.buffers[name], system.rows(name)
    device = _device(buffer)
    records = jax.tree.map(lambda leaf: np.zeros((rows, *leaf.shape), leaf.dtype), Record(example, np.int32(0)))
    empty = to_device(Chunk(records, 0), device)
    program = jax.jit(buffer.add, donate_argnums=0).lower(state, empty.records, empty.count).compile()

    def add(state: PyTree, chunk: Chunk[Any]) -> PyTree:
        on_device = to_device(chunk, device)
        return program(state, on_device.records, on_device.count)

    return add


def _compile_schedule(
    schedule: Schedule, buffer: Buffer[Any, Any, Any], run: TrainerRun, buffer_state: PyTree
) -> TrainerPrograms[Any]:
    prepare = schedule.prepare if schedule.prepare is not None else _data_of

    def sample(state: PyTree, position: jax.Array, rng_key: jax.Array, /) -> PyTree:
        return prepare(buffer.sample(state, schedule.batch_size, position, rng_key))

    if buffer.placement == "device":
        return compile_trainer(schedule.trainer, sample, run.state, buffer_state, steps=schedule.chunk)
    return _compile_with_host_data(schedule, sample, run, buffer_state)


def _data_of(record: Record[Any]) -> PyTree:
    return record.data


def _compile_with_host_data(
    schedule: Schedule, sample: SampleFn, run: TrainerRun, buffer_state: PyTree
) -> TrainerPrograms[Any]:
    """Gather a chunk's batches on the host in one program, and move them to the trainer in one transfer."""
    offsets = np.arange(schedule.chunk, dtype=np.int32)

    def gather(buffer_state: PyTree, position: jax.Array, rng_key: jax.Array) -> PyTree:
        return jax.vmap(lambda offset: sample(buffer_state, position + offset, rng_key))(offsets)

    def take(batches: PyTree, position: jax.Array, rng_key: jax.Array, /) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[position], batches)

    host = next(iter(jax.tree.leaves(buffer_state)[0].devices()))
    device = next(iter(run.data_key.devices()))
    gathering = jax.jit(gather).lower(buffer_state, np.int32(0), jax.device_put(run.data_key, host)).compile()
    batches = jax.device_put(gathering(buffer_state, np.int32(0), jax.device_put(run.data_key, host)), device)
    programs = compile_trainer(schedule.trainer, take, run.state, batches, steps=schedule.chunk)

    def chunk(state: Any, buffer_state: PyTree, position: Any, rng_key: jax.Array, /) -> Any:
        batches = gathering(buffer_state, np.int32(position), jax.device_put(rng_key, host))
        return programs.chunk(state, jax.device_put(batches, device), 0, rng_key)

    return programs._replace(chunk=chunk)
