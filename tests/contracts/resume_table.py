"""The systems that must go on exactly, and what two processes do with them.

`python -m tests.contracts.resume_table straight DIRECTORY GROUP` runs each without an interruption, leaves states
behind, says how each ends, and is killed. `... resumed DIRECTORY GROUP NUMBERS` goes on from a state of each, and says
how that ends.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pamiq_jax as pj
from examples import cartpole, classifiers, curiosity, dreamer, forward_dynamics, gan, jepa, ppo, replicas, vae
from examples.digits import Digits, load_digits
from pamiq_jax.checkpoint import StateInfo, StateStore, latest_n
from pamiq_jax.data import Buffer, mixed_buffer, reservoir_buffer, rollout_buffer, sequence_buffer
from tests.runtime.fakes import AGENT, SavedWorld
from tests.runtime.resuming import MakeSystem, digest, parts_of, phases

ROUNDS: dict[str, Any] = {"batch_size": 4, "steps": 4, "steps_per_chunk": 2, "when": pj.min_size(4) & pj.min_new(3)}
"""Runs of two chunks, so that every second tick or so is inside one."""


def loss_fn(params: Any, batch: Any, rng_key: jax.Array) -> Any:
    """Draw the model to what was seen; says how far each record is if the buffer wants to know."""
    records = getattr(batch, "records", batch)
    seen = jnp.tanh(records["observation"])
    errors = jnp.mean((seen - params["policy"].reshape((1,) * (seen.ndim - 1) + (3,))) ** 2, axis=-1)
    if records is batch:
        return jnp.mean(errors) + 0.1 * jax.random.uniform(rng_key) * jnp.sum(params["policy"]), {}
    return jnp.mean(batch.weights * errors), {"priorities": errors}


TRAINER = pj.gradient_trainer(loss_fn, optax.adam(0.05), trains=("policy",))


def learning_from(make_buffer: Callable[[], Buffer[Any, Any, Any]], **changes: Any) -> pj.System:
    return pj.System(
        models={"policy": pj.Model(jnp.zeros(3))},
        buffers={"seen": make_buffer()},
        trainers={"fit": pj.Schedule(TRAINER, data="seen", **(ROUNDS | changes))},
        interaction=pj.Interaction(AGENT, SavedWorld()),
    )


def windows() -> Buffer[Any, Any, Any]:
    return sequence_buffer(12, window=4, burn_in=1, stride=2, carry="carry")


def mixed() -> Buffer[Any, Any, Any]:
    return mixed_buffer([pj.ring_buffer(6), reservoir_buffer(8, seed=1)], [1, 1])


BUFFERS: dict[str, MakeSystem] = {
    name: partial(learning_from, make, **changes)
    for name, make, changes in [
        ("ring, uniform", lambda: pj.ring_buffer(10), {}),
        ("ring, in epochs", lambda: pj.ring_buffer(10, sampling="epochs"), {}),
        ("ring, in order", lambda: pj.ring_buffer(10, sampling="in_order"), {}),
        ("ring on the host", lambda: pj.ring_buffer(10, placement="host"), {}),
        ("reservoir", lambda: reservoir_buffer(8, seed=3), {}),
        ("sequence", windows, {"batch_size": 2, "when": pj.min_size(6) & pj.min_new(3)}),
        ("rollout", lambda: rollout_buffer(4), {"batch_size": 5, "when": pj.min_new(4)}),
        ("prioritized", lambda: pj.prioritized_buffer(10), {}),
        ("prioritized on the host", lambda: pj.prioritized_buffer(10, placement="host"), {}),
        ("mix", mixed, {}),
        ("mix of prioritized", lambda: mixed_buffer([pj.prioritized_buffer(6), pj.prioritized_buffer(9)], [1, 3]), {}),
    ]
}


def smaller(system: pj.System, **changes: Any) -> pj.System:
    """Return a system whose runs are short, and begin early."""
    schedules = {name: dataclasses.replace(schedule, **changes) for name, schedule in system.trainers.items()}
    return dataclasses.replace(system, trainers=schedules)


def of_digits(make: Callable[[np.ndarray], pj.System]) -> pj.System:
    return smaller(make(load_digits()[0].images[:10]), **ROUNDS)


def of_windows(make: Callable[[], pj.System]) -> pj.System:
    return smaller(make(), **(ROUNDS | {"when": pj.min_size(10) & pj.min_new(3)}))


def dreams() -> pj.System:
    world = forward_dynamics.init_dynamics(0)
    return of_windows(lambda: dreamer.make_system(world, steps=100))


def balanced() -> pj.System:
    system = cartpole.make_system(2)
    schedule = dataclasses.replace(system.trainers["a2c"], batch_size=4, steps=2, steps_per_chunk=1)
    buffers = {"rollout": pj.rollout_buffer(4, bootstrap=0)}
    return dataclasses.replace(system, buffers=buffers, trainers={"a2c": schedule})


def tiny_task(task: ppo.Task) -> ppo.Task:
    return dataclasses.replace(task, num_envs=2, rollout_length=4, gradient_steps=4, minibatch_size=4, hidden=(8,))


def updates(task: ppo.Task) -> pj.System:
    return smaller(ppo.make_system(tiny_task(task)), steps_per_chunk=2)


def curious() -> pj.System:
    system = curiosity.make_system()
    learn = dataclasses.replace(system.trainers["dynamics"], **(ROUNDS | {"when": pj.min_size(10) & pj.min_new(3)}))
    update = dataclasses.replace(system.trainers["ppo"], steps_per_chunk=2)
    return dataclasses.replace(system, trainers={"dynamics": learn, "ppo": update})


def classified(variant: Callable[[], classifiers.Variant]) -> pj.System:
    system = smaller(classifiers.make_system(variant(), load_digits()[0]), **ROUNDS)
    # A tick a millisecond, as all systems of this table.
    return dataclasses.replace(system, interaction=dataclasses.replace(system.interaction, interval_seconds=None))


def bred() -> pj.System:
    """Return a system in which a vmapped family of classifiers learns, with what is drawn as both of its batches."""
    system = classified(classifiers.linen_variant)
    params = replicas.first_params()["classifier"]

    def act(params: Any, carry: Any, image: jax.Array, rng_key: jax.Array) -> Any:
        logits: Any = replicas.classifier.apply(params["classifier"], image[None])
        return carry, logits.argmax(-1)[0].astype(jnp.int32), {}

    def both(records: Any) -> Any:
        digits = Digits(records.data["image"], records.data["label"])
        return {"train": digits, "validation": digits}

    schedule = pj.Schedule(replicas.make_population(4), data="seen", prepare=both, **ROUNDS)
    assert isinstance(system.interaction, pj.Interaction)
    return dataclasses.replace(
        system,
        models={"classifier": pj.Model(params)},
        trainers={"population": schedule},
        interaction=dataclasses.replace(system.interaction, agent=pj.Agent(act)),
    )


EXAMPLES: dict[str, MakeSystem] = {
    "cartpole": balanced,
    "vae": partial(of_digits, vae.make_system),
    "jepa": partial(of_digits, jepa.make_system),
    "gan": partial(of_digits, gan.make_system),
    "forward_dynamics": partial(of_windows, forward_dynamics.make_system),
    "dreamer": dreams,
    "ppo, discrete": partial(updates, ppo.CARTPOLE),
    "ppo, continuous": partial(updates, ppo.PENDULUM),
    "curiosity": curious,
    "classifiers, linen": partial(classified, classifiers.linen_variant),
    "classifiers, nnx": partial(classified, classifiers.nnx_variant),
    "replicas": bred,
}


def shorten() -> None:
    """Make the examples' windows short."""
    for module in (forward_dynamics, dreamer, curiosity):
        for name, value in (("CAPACITY", 64), ("WINDOW", 5)):
            setattr(module, name, value)
    forward_dynamics.IMAGINED, dreamer.HORIZON = 2, 3
    curiosity.TASK = dataclasses.replace(tiny_task(curiosity.TASK), num_envs=curiosity.CARS)


SYSTEMS = {**BUFFERS, **EXAMPLES}
GROUPS: dict[str, tuple[str, ...]] = {
    "buffers": tuple(BUFFERS),
    "digits": ("vae", "jepa", "gan"),
    "classifiers": ("classifiers, linen", "classifiers, nnx", "replicas"),
    "control": ("cartpole", "ppo, discrete", "ppo, continuous"),
    "worlds": ("forward_dynamics", "dreamer", "curiosity"),
}
"""Those that share two processes."""
TICKS, SAVED_SINCE = 30, 14


def state_within_a_run(directory: Path) -> StateInfo:
    """Return the first state in which some trainer has done a part of its run."""
    states = StateStore(directory).states()
    for state in states:
        if any(phase == "training" and chunk > 0 for phase, chunk in phases(directory, state.number).values()):
            return state
    raise AssertionError(f"no trainer is inside a run in any of {len(states)} states of {directory.name}")


def end(result: pj.LockstepResult, reports: list[Any]) -> dict[str, Any]:
    """Return the checksum of each part of a run's end, of each row of metrics and of each report."""
    learner, actors, snapshot, buffers = parts_of(result)
    parts = {"learner": learner, "actors": actors, "snapshot": snapshot, "buffers": buffers}
    return {
        **{part: digest(value) for part, value in parts.items()},
        "metrics": [digest(row) for row in result.metrics],
        "ticks": [digest(report) for report in reports],
    }


def straight(name: str, directory: Path) -> dict[str, Any]:
    """Run a system, with a state after each of the later ticks, and return the first within a run and the end."""
    reports: list[Any] = []
    is_due = pj.when(lambda now, last: now.time_ms >= SAVED_SINCE)  # without an interval a tick is a millisecond
    result = pj.run_lockstep(
        SYSTEMS[name](), TICKS, directory=directory, save=is_due, keep=latest_n(TICKS), on_interaction=reports.append
    )
    return {"state": state_within_a_run(directory).number, "end": end(result, reports)}


def resumed(name: str, directory: Path, number: int) -> dict[str, Any]:
    """Go on from a state to where the uninterrupted run ended, and return that end."""
    reports: list[Any] = []
    info = next(state for state in StateStore(directory).states() if state.number == number)
    rest = TICKS - sum(info.facts["ticks"].values())
    result = pj.run_lockstep(SYSTEMS[name](), rest, directory=directory, resume=number, on_interaction=reports.append)
    return {"end": end(result, reports)}


def main(task: str, directory: str, group: str, numbers: str = "{}") -> None:
    shorten()
    for index, name in enumerate(GROUPS[group]):
        place = Path(directory) / group / str(index)
        said = straight(name, place) if task == "straight" else resumed(name, place, json.loads(numbers)[name])
        print(json.dumps({"name": name, **said}), flush=True)
    if task == "straight":
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
