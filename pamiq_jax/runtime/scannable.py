"""Which systems can be run as one program, and what to change in the others."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from pamiq_jax.conditions import Condition, Progress
from pamiq_jax.errors import InvalidValueError
from pamiq_jax.runtime.agent import Agent
from pamiq_jax.runtime.environment import PureEnvironment
from pamiq_jax.runtime.scan_tick import truth
from pamiq_jax.runtime.system import Schedule, System

_INSTEAD = "or use run_lockstep"


def check_scannable(system: System, train_every: int) -> None:
    """Raise unless all of a system can be traced into one program.

    Args:
        system: which.
        train_every: interactions in a round.

    Raises:
        InvalidValueError: naming what cannot, and what to do about it.
    """
    names = list(system.interactions)
    if len(names) != 1:
        raise InvalidValueError(
            "run_scanned: System(interaction)", names, "one", "step several copies of an environment by `num_envs`"
        )
    _check_interaction(system, names[0])
    for name, model in system.models.items():
        if model.device is not None:
            remedy = f"leave it out, {_INSTEAD}"
            raise InvalidValueError(f"run_scanned: Model {name!r} device", model.device, "None", remedy)
    for name in system.buffers:
        _check_buffer(system, name, train_every)
    for name, schedule in system.trainers.items():
        _check_schedule(system, name, schedule)


def _check_interaction(system: System, name: str) -> None:
    interaction = system.interactions[name]
    if not isinstance(interaction.agent, Agent):
        kind, remedy = type(interaction.agent).__name__, f"write it as a pure function, Agent(act), {_INSTEAD}"
        raise InvalidValueError("run_scanned: Interaction(agent)", kind, "an Agent, which can be compiled", remedy)
    if not isinstance(interaction.environment, PureEnvironment):
        kind, expected = type(interaction.environment).__name__, "an environment made of JAX functions"
        remedy = f"make one with pamiq_jax.envs.JaxEnvironment(reset, step, action=...), {_INSTEAD}"
        raise InvalidValueError("run_scanned: Interaction(environment)", kind, expected, remedy)


def _check_buffer(system: System, name: str, train_every: int) -> None:
    if system.buffers[name].placement == "host":
        remedy = f"leave `placement` out, {_INSTEAD}"
        raise InvalidValueError(f"run_scanned: buffer {name!r} placement", "host", "'device'", remedy)
    if train_every > (capacity := system.queue(name).capacity):
        expected, remedy = f"at most {capacity}, what waits for buffer {name!r}", "give it a Queue(capacity) as large"
        raise InvalidValueError("run_scanned(train_every)", train_every, expected, remedy)


def _check_schedule(system: System, name: str, schedule: Schedule) -> None:
    where = f"run_scanned: trainer {name!r}"
    if not schedule.trainer.compiled:
        remedy = f"write its step so that it can be traced, {_INSTEAD}"
        raise InvalidValueError(f"{where} compiled", False, "True", remedy)
    for source in schedule.sources.values():
        if system.buffers[source.buffer].stable_in_run and schedule.chunk != schedule.steps:
            expected = f"{schedule.steps}, since buffer {source.buffer!r} must not change within a run"
            raise InvalidValueError(
                f"{where} steps_per_chunk", schedule.chunk, expected, f"write steps_per_chunk={schedule.steps}"
            )
        _check_condition(where, source.condition)


def _check_condition(where: str, condition: Condition) -> None:
    counters = jax.eval_shape(lambda: Progress(*(jnp.zeros((), jnp.int32) for _ in Progress._fields)))
    try:
        jax.eval_shape(lambda now, last: truth(condition, now, last), counters, counters)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        expected = "one that can be traced: arithmetic and comparisons, joined by & | ~"
        remedy = f"write it without `if`, `and`, `or`, `not`, `min` and `max`, {_INSTEAD}"
        raise InvalidValueError(f"{where} when", condition, expected, remedy) from error
