"""What a system must be, so that it can run. Said when it is built."""

from __future__ import annotations

import graphlib
from collections.abc import Mapping
from typing import Any, cast

from pamiq_jax.arguments import checked_names
from pamiq_jax.conditions import check_satisfiable, contradiction
from pamiq_jax.data import Buffer
from pamiq_jax.errors import InvalidValueError, UnknownNameError, UnsatisfiableConditionError
from pamiq_jax.runtime.agent import Agent
from pamiq_jax.runtime.interaction import Interaction
from pamiq_jax.runtime.system import Model, Queue, Schedule, System


def check_system(system: System) -> None:
    """Raise if the parts of a system do not fit together.

    Raises:
        UnknownNameError: a model, buffer or trainer that does not exist is referred to.
        UnsatisfiableConditionError: a trainer would wait for ever.
        InvalidValueError: anything else; see `System`.
    """
    _check_kinds(system)
    for name, schedule in system.trainers.items():
        _check_names(system, f"trainer {name!r}", schedule)
        _check_data(system, f"trainer {name!r}", schedule)
    for name in system.trainers:  # all their names are known by now
        _check_models(system, name)
    _check_order(system)
    _check_versions(system)
    _check_interactions(system)
    for buffer in system.queues:
        if buffer not in system.buffers:
            raise UnknownNameError("buffer", buffer, system.buffers, "System(queues)")


def _check_kinds(system: System) -> None:
    """Raise unless each part is of its own class, and not what belongs into one: users may not type."""
    kinds: tuple[tuple[str, Mapping[str, Any], type, str], ...] = (
        ("models", system.models, Model, "wrap parameters: Model(params)"),
        ("buffers", system.buffers, Buffer, "make one with ring_buffer, or another of the buffers"),
        ("trainers", system.trainers, Schedule, "wrap a trainer: Schedule(trainer, data=..., batch_size=...)"),
        ("queues", system.queues, Queue, "write Queue(capacity)"),
        ("interaction", system.interactions, Interaction, "write Interaction(agent, environment)"),
    )
    for argument, parts, kind, remedy in kinds:
        if not isinstance(cast(Any, parts), Mapping):
            expected = f"{'an Interaction, or ' * (kind is Interaction)}a dict of {kind.__name__} by name"
            raise InvalidValueError(f"System({argument})", type(parts).__name__, expected, "give each a name")
        checked_names(f"System({argument})", list(parts), "part")
        for name, part in cast(Mapping[str, object], parts).items():
            if not isinstance(part, kind):
                where = f"System({argument}) {name!r}"
                article = "an" if kind is Interaction else "a"
                raise InvalidValueError(where, type(part).__name__, f"{article} {kind.__name__}", remedy)


def _check_interactions(system: System) -> None:
    for name, buffer in system.buffers.items():
        feeders = list(system.feeders(name))
        if buffer.is_ordered and len(feeders) > 1:
            expected = "fed by one interaction, since its records must follow each other"
            raise InvalidValueError(f"buffer {name!r}", feeders, expected, "give each a buffer of its own by `collect`")
    worlds: dict[int, str] = {}
    for name, interaction in system.interactions.items():
        for buffer in interaction.collect or ():
            if buffer not in system.buffers:
                raise UnknownNameError("buffer", buffer, system.buffers, f"Interaction(collect) of {name!r}")
        for part in (interaction.environment, interaction.agent):
            is_shared = worlds.setdefault(id(part), name) != name and not isinstance(part, Agent)
            if is_shared:
                others = f"one of its own: {worlds[id(part)]!r} has it too, in another thread"
                raise InvalidValueError(f"interaction {name!r}", type(part).__name__, others)


def _check_names(system: System, where: str, schedule: Schedule) -> None:
    for source in schedule.sources.values():
        if source.buffer not in system.buffers:
            raise UnknownNameError("buffer", source.buffer, system.buffers, where)
    trainer = schedule.trainer
    for model in (*(trainer.trains or ()), *(trainer.publishes or ()), *trainer.reads):
        if model not in system.models:
            raise UnknownNameError("model", model, system.models, where)
    for other in schedule.after:
        if other not in system.trainers:
            raise UnknownNameError("trainer", other, system.trainers, f"{where} after")


def _check_models(system: System, name: str) -> None:
    trainer, where = system.trainers[name].trainer, f"trainer {name!r}"
    can_train = trainer.trains is None and any(model.train for model in system.models.values())
    if not (can_train or trainer.trains or trainer.publishes):
        models = {model: f"train={spec.train}" for model, spec in system.models.items()}
        remedy = "name a model in its `trains`, or give the system one with train=True"
        expected = "one at least: it would run for ever and change nothing"
        raise InvalidValueError(f"what {where} can train of the models", models, expected, remedy)
    for model in trainer.trains or ():
        if not system.models[model].train:
            raise InvalidValueError(f"model {model!r} train", False, f"True, since {where} trains it")
    for model in trainer.publishes or ():
        is_asked_for = model not in (trainer.trains or ()) or trainer.publishes != trainer.trains
        if is_asked_for and not system.models[model].infer:
            raise InvalidValueError(f"model {model!r} infer", False, f"True, since {where} publishes it")
    for model in system.made_by(name):
        if not system.models[model].train:
            expected = f"True, since {where} publishes new versions of it"
            raise InvalidValueError(f"model {model!r} train", False, expected)
        makers = [other for other in system.trainers if model in {*system.trained_by(other), *system.made_by(other)}]
        if others := [other for other in makers if other != name]:
            expected = f"only models that no other trainer makes: {model!r} is that of {others[0]!r} too"
            raise InvalidValueError(f"{where} publishes", model, expected, "give one of the two another model")
        if system.models[model].dtype is not None and model in system.handed_on:
            expected = f"None, since another trainer reads what {where} publishes"
            raise InvalidValueError(f"model {model!r} dtype", system.models[model].dtype, expected)
    for model in trainer.reads:
        if model in (trainer.trains or ()):
            raise InvalidValueError(f"{where} reads", model, "models that it does not train itself")
        if model in (trainer.publishes or ()):
            raise InvalidValueError(f"{where} publishes", model, "no model that it only reads")


def _check_data(system: System, where: str, schedule: Schedule) -> None:
    for source in schedule.sources.values():
        buffer = system.buffers[source.buffer]
        if buffer.required(source.batch_size) > buffer.capacity:
            expected = f"at most {buffer.capacity}, the capacity of its buffer"
            raise InvalidValueError(f"{where} batch_size", source.batch_size, expected)
        check_satisfiable(source.condition, buffer.capacity, where)
    going_on = [name for name, source in schedule.sources.items() if system.buffers[source.buffer].goes_on]
    if going_on and len(going_on) < len(schedule.sources):
        expected = "all or none of its buffers going on from one run to the next, since one number counts batches"
        remedy = 'give the array_source `sampling="uniform"`, which needs no place'
        raise InvalidValueError(f"{where} data", going_on, expected, remedy)


def _check_order(system: System) -> None:
    try:
        graphlib.TopologicalSorter({name: schedule.after for name, schedule in system.trainers.items()}).prepare()
    except graphlib.CycleError as error:
        circle = " -> ".join(f"trainer {name!r}" for name in error.args[1])
        raise InvalidValueError(
            "Schedule(after)",
            circle,
            "an order: trainers that wait in a circle never run",
            "take one of them out of another one's `after`",
        ) from None


def _check_versions(system: System) -> None:
    """Raise if a trainer waits for a version to be published that nobody can publish before it has run."""

    def can_begin(schedule: Schedule) -> bool:
        sources = schedule.sources.values()
        return not any(
            contradiction(source.condition, system.buffers[source.buffer].capacity, most_versions=0)
            for source in sources
        )

    asking = {name for name, schedule in system.trainers.items() if not can_begin(schedule)}
    beginners = set(system.trainers) - asking
    while late := {name for name in beginners if not beginners.issuperset(system.trainers[name].after)}:
        beginners -= late
    waiting = {schedule.group for name, schedule in system.trainers.items() if name not in beginners}
    for name in beginners:
        group = system.trainers[name].group
        if system.published_by(name) and (group is None or group not in waiting):
            return  # from here on there are versions for all
    for name, schedule in system.trainers.items():
        if name in asking:
            raise UnsatisfiableConditionError(
                f"trainer {name!r} would wait for ever for {schedule.when!r}: no version is published before a trainer "
                "has run, and each that publishes waits for one; give it another condition, for example min_new(100)"
            )
