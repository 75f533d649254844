"""Everything that is compiled, compiled before the agent starts."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax import trees
from pamiq_jax.conditions import Progress
from pamiq_jax.data import Buffer, Chunk, record_of
from pamiq_jax.data.buffer import record_spec
from pamiq_jax.errors import InvalidValueError, PublishMismatchError, RecordMismatchError, StepStructureError, noted
from pamiq_jax.publishing import check_finite
from pamiq_jax.runtime.acting import Acting, acting_program, first_actor
from pamiq_jax.runtime.batches import check_priorities_come, compile_schedule, compile_updates
from pamiq_jax.runtime.faults import FAIL_FAST, FaultPolicy
from pamiq_jax.runtime.interaction import AGENT
from pamiq_jax.runtime.programs import Compiled, Programs
from pamiq_jax.runtime.state import ActorState, BufferRun, LearnerState, TrainerRun
from pamiq_jax.runtime.system import Model, System
from pamiq_jax.trainer import TrainerPrograms
from pamiq_jax.trainer.compile import own
from pamiq_jax.trainer.guarding import skip_reader
from pamiq_jax.trainer.step_donation import copied
from pamiq_jax.types import Params, PyTree


def compile_system(
    system: System,
    *,
    seed: int = 0,
    check_donation: bool = False,
    donates: bool = True,
    faults: FaultPolicy = FAIL_FAST,
) -> Compiled:
    """Return a system's compiled programs and first states. Nothing of it runs in a thread.

    Args:
        system: what to compile.
        seed: all keys are folded from it and from names, so adding a trainer changes no other's.
        check_donation: have each chunk prove that it deletes no published array.
        donates: whether trainers' states are updated in place. False keeps every state as it was, so that it can be
            saved in the background, for the price of one more copy of what would be donated.
        faults: what becomes of a trainer that fails. If it may begin anew, no trainer's state is donated.

    Raises:
        InvalidValueError: a buffer's records are not known.
        UnknownNameError: `faults` repairs a trainer that does not exist.
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
    faults.check(system.trainers)
    base = jax.random.key(seed)
    runs = {name: _first_run(system, name, base) for name in system.trainers}
    params, models = _first_params(system, runs)
    acting: dict[str, Acting] = {}
    actors: dict[str, ActorState] = {}
    records: dict[str, dict[str, PyTree]] = {}
    for name, interaction in system.interactions.items():
        actors[name] = first_actor(interaction, _named_key(base, AGENT if name == AGENT else f"{AGENT} {name}"))
        acting[name], records[name] = acting_program(system, name, params, actors[name])
    examples = {name: buffer_example(system, name, records) for name in system.buffers}
    buffers = {name: _first_buffer(system, name, example) for name, example in examples.items()}
    programs = Programs(
        system=system,
        acting=acting,
        add={name: _compile_add(system, name, run.state, examples[name]) for name, run in buffers.items()},
        sizes={
            name: jax.jit(buffer.size).lower(buffers[name].state).compile()
            for name, buffer in system.buffers.items()
            if not buffer.keeps_all
        },
        can_sample={
            name: jax.jit(can_sample).lower(buffers[name].state).compile()
            for name, buffer in system.buffers.items()
            if (can_sample := buffer.can_sample) is not None
        },
        trainers={
            name: _compile_schedule(system, name, runs[name], buffers, donates=donates and not faults.restarts)
            for name in system.trainers
        },
        update=compile_updates(system, buffers, donates=donates),
        check_donation=check_donation,
        faults=faults,
        skips={name: reader for name, run in runs.items() if (reader := skip_reader(run.state)) is not None},
    )
    check_priorities_come(system, runs, buffers)
    for name in system.trainers:
        taken_over(system, name, models)  # also compiles a copy that it makes
    return Compiled(programs, LearnerState(runs, buffers, models), actors, params, examples)


def _named_key(base: jax.Array, name: str) -> jax.Array:
    return jax.random.fold_in(base, zlib.crc32(name.encode()))


def _first_run(system: System, name: str, base: jax.Array) -> TrainerRun:
    names = (*system.trained_by(name), *system.trainers[name].trainer.reads)
    params = {model: system.models[model].params for model in names}
    state = own(system.trainers[name].trainer.init(_named_key(base, f"trainer {name}"), params))
    data_key = own(_named_key(base, f"data {name}"))
    schedule = system.trainers[name]
    # All counters are there from the start, so that every saved state has the same names.
    last, after = dict.fromkeys(schedule.sources, Progress()), dict.fromkeys(schedule.after, 0)
    return TrainerRun(state=state, data_key=data_key, last=last, after=after)


def _first_params(system: System, runs: Mapping[str, TrainerRun]) -> tuple[dict[str, Params], dict[str, Params]]:
    """Return version 0, and what trainers take over in their first runs: of a target, what it begins with."""
    models = {name: own(system.models[name].params) for name in system.handed_on}
    params = {
        name: place_published(model, cast_published(model, own(model.params)))
        for name, model in system.models.items()
        if model.infer
    }
    trained: set[str] = set()
    for name, run in runs.items():
        given = publish_function(system, name)(run.state)
        published = published_params(system, name, given)
        _check_declared(system, name, given)
        check_own_models(system, name, published)
        handed = handed_on(system, name, run.state, given)
        check_results(published, handed)  # also compiles the checks for these trees
        models.update({model: handed[model] for model in system.made_by(name) if model in handed})
        params.update(published)
        trained.update(published)
    if rest := {name: value for name, value in params.items() if name not in trained}:
        check_finite(rest)
    return params, models


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
    return {name: place_published(system.models[name], published[name]) for name in names}


def _check_declared(system: System, trainer: str, published: Mapping[str, Params]) -> None:
    """Raise if a trainer publishes a model that it does not declare: nobody would see it."""
    declared = {*system.trained_by(trainer), *(system.trainers[trainer].trainer.publishes or ())}
    if undeclared := [name for name in published if name not in declared]:
        raise PublishMismatchError(
            f"trainer {trainer!r} declares {sorted(declared)}, but its `publish` returned {undeclared} too; name what "
            "it changes in `trains`, what it only publishes in `publishes`, or leave it out"
        )


def check_own_models(system: System, trainer: str, published: Mapping[str, Params]) -> None:
    """Raise if what a trainer publishes of models that it does not train, as targets, has another form than those.

    Raises:
        PublishMismatchError: naming model and leaf.
    """
    for model in set(published) - set(system.trained_by(trainer)):
        first = cast_published(system.models[model], jax.tree.map(jnp.asarray, system.models[model].params))
        if (problem := trees.difference(first, published[model])) is not None:
            remedy = "give the Model parameters of the form that is published; a target's are those of its source"
            raise PublishMismatchError(
                f"trainer {trainer!r} publishes model {model!r} in another form: {problem}; {remedy}"
            )


def handed_on(system: System, trainer: str, state: Any, given: Mapping[str, Params]) -> dict[str, Params]:
    """Return what other trainers are to take over of a trainer's models: those it trains, and those it only publishes.

    Args:
        system: the system.
        trainer: the trainer's name.
        state: its state at the end of a run.
        given: what its `publish` returned.
    """
    if not system.handed_on:
        return {}
    trained = {model: state.params[model] for model in system.trained_by(trainer)}
    made = {model: given[model] for model in system.made_by(trainer) if model in given}
    models = {model: value for model, value in {**trained, **made}.items() if model in system.handed_on}
    return models if system.trainers[trainer].trainer.compiled else copied(models)


def check_results(published: Mapping[str, Params], handed: Mapping[str, Params]) -> None:
    """Raise if what comes of a run is not finite. Each of both is a program of its own, for it has its own form.

    Args:
        published: what inference may see of it.
        handed: what other trainers take over of it.

    Raises:
        NonFiniteError: naming the leaves.
    """
    check_finite(published)
    check_finite({model: value for model, value in handed.items() if model not in published})


def taken_over(system: System, trainer: str, models: Mapping[str, Params]) -> dict[str, Params]:
    """Return the models that a trainer takes over as its run begins; those of a step that may delete them are copies.

    Args:
        system: the system.
        trainer: the trainer's name.
        models: `LearnerState.models`.
    """
    if not system.handed_on:
        return {}
    known = system.trainers[trainer].trainer
    names = {*system.trained_by(trainer), *known.reads} & system.handed_on
    taken = {name: models[name] for name in names}
    return taken if known.compiled else copied(taken)


def cast_published(model: Model, params: Params) -> Params:
    """Return parameters with their floating-point leaves in the dtype that the model is published in.

    Example:
        >>> cast_published(Model(0.0, dtype=jnp.bfloat16), {"w": jnp.ones(2), "steps": jnp.int32(3)})["w"].dtype
        dtype(bfloat16)
    """
    if model.dtype is None:
        return params
    return jax.tree.map(
        lambda leaf: leaf.astype(model.dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, params
    )


def place_published(model: Model, params: Params) -> Params:
    """Return parameters on the device that the model is published to; the transfer may still be under way."""
    return params if model.device is None else jax.device_put(params, model.device)


def publish_function(system: System, name: str) -> Callable[[Any], Any]:
    """Return a trainer's publish function with the casts that its models ask for, all in one program.

    A trainer that is not compiled publishes copies: pieces of its step may donate its state, whenever they like.

    Args:
        system: the system.
        name: the trainer's name.
    """
    trainer = system.trainers[name].trainer
    publish = trainer.publish if trainer.compiled else lambda state: copied(trainer.publish(state))
    casts = {
        model: system.models[model] for model in system.published_by(name) if system.models[model].dtype is not None
    }
    if not casts:
        return publish

    def publish_cast(state: Any) -> Any:
        published = publish(state)
        return {**published, **{model: cast_published(spec, published[model]) for model, spec in casts.items()}}

    return publish_cast


def buffer_example(system: System, name: str, records: Mapping[str, dict[str, PyTree]]) -> PyTree:
    """Return the form of a buffer's records, which is the same from wherever they come.

    Args:
        system: the system.
        name: the buffer's name.
        records: the forms of what the interactions bring, by their names.

    Raises:
        InvalidValueError: nothing feeds the buffer, and it has no example.
        RecordMismatchError: two feed it records of different forms.
    """
    example = system.buffers[name].example
    forms = {} if example is None else {"its example": record_spec(example)}
    for interaction, record in records.items():
        select = system.collects(interaction).get(name)
        if select is not None:
            # On arrays, as it will be called: a selector may be plain numpy code.
            forms[f"interaction {interaction!r}"] = record_spec(select(trees.zeros_of(record)))
    if not forms:
        raise InvalidValueError(
            f"buffer {name!r} example", None, "one record", "no interaction feeds it: pass `example=`"
        )
    (first, form), *others = forms.items()
    for other, its_form in others:
        if (problem := trees.difference(form, its_form)) is not None:
            remedy = "give the interaction a `collect` that stores that form, or no entry for this buffer"
            raise RecordMismatchError(
                f"buffer {name!r}: {other} feeds it other records than {first}: {problem}; {remedy}"
            )
    return form


def _device(buffer: Buffer[Any, Any, Any]) -> Any:
    return jax.devices("cpu")[0] if buffer.placement == "host" else own(jnp.zeros(())).devices().pop()


def _first_buffer(system: System, name: str, example: PyTree) -> BufferRun:
    buffer = system.buffers[name]
    record = trees.zeros_of(
        record_spec(record_of(example))
    )  # arrays: an `init` of somebody's own may compute with them
    try:
        state = buffer.init(record)
    except Exception as error:
        error.add_note(f"while buffer {name!r} was made: its `init` was given a record of zeros, {record_spec(record)}")
        raise
    size = buffer.filled if buffer.keeps_all else int(buffer.size(state))
    return BufferRun(jax.device_put(own(state), _device(buffer)), inserted=buffer.filled, size=size)


def _compile_add(system: System, name: str, state: PyTree, example: PyTree) -> Callable[[PyTree, Chunk[Any]], PyTree]:
    buffer, records = system.buffers[name], trees.zeros_of(record_of(example), system.rows(name))
    lowered = jax.jit(buffer.add, donate_argnums=0).lower(state, records, np.int32(0))
    if (problem := trees.difference(state, lowered.out_info)) is not None:
        remedy = "return every leaf with the shape and dtype it came with (`.astype(old.dtype)`)"
        raise StepStructureError(f"`add` of buffer {name!r} returned a state of another form: {problem}; {remedy}")
    program = lowered.compile()

    def add(state: PyTree, chunk: Chunk[Any]) -> PyTree:
        # A call moves numpy's arrays to where the state is, in a fraction of the time that device_put takes. It may
        # alias their memory: a drained block is read-only and its collector never writes to it again, so that is
        # safe and saves a copy; with recycled blocks it would be a race.
        return program(state, chunk.records, np.int32(chunk.count))

    return add


def _compile_schedule(
    system: System, name: str, run: TrainerRun, buffers: Mapping[str, BufferRun], *, donates: bool
) -> TrainerPrograms[Any]:
    trainer = system.trainers[name].trainer._replace(publish=publish_function(system, name))
    with noted(f"while trainer {name!r} was compiled"):
        return compile_schedule(system, name, trainer, run, buffers, donates=donates)
