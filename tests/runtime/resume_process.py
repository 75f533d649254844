"""What the processes do that are killed, go on, or run straight: `python -m tests.runtime.resume_process TASK ...`."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import pamiq_jax as pj
from examples import ppo
from pamiq_jax.data import rollout_buffer
from tests.runtime.everything import everything
from tests.runtime.fakes import AGENT, PATIENCE, SavedWorld, learner
from tests.runtime.resuming import MakeSystem, digest, parts_of

TICKS, SAVED_AFTER, KILLED_IN = 30, 21, 25


def cartpole() -> pj.System:
    task = dataclasses.replace(
        ppo.CARTPOLE, num_envs=2, rollout_length=4, gradient_steps=4, minibatch_size=4, hidden=(8,)
    )
    system = ppo.make_system(task)
    schedule = dataclasses.replace(system.trainers["ppo"], steps_per_chunk=1)
    return dataclasses.replace(system, trainers={"ppo": schedule})


SYSTEMS: dict[str, MakeSystem] = {"everything": everything, "cartpole": cartpole}
OPTIONS: dict[str, dict[str, Any]] = {"everything": {"train_ticks": 2}, "cartpole": {}}


def be_killed(name: str, directory: Path) -> None:
    """Save after a tick, go on, and die without a chance to do anything about it."""
    ticks = 0

    def die(report: pj.runtime.InferReport) -> None:
        nonlocal ticks
        ticks += 1
        if ticks == KILLED_IN:
            os.kill(os.getpid(), signal.SIGKILL)

    is_due = pj.when(lambda now, last: ticks == SAVED_AFTER)
    pj.run_lockstep(
        SYSTEMS[name](), TICKS, directory=directory / name, save=is_due, on_interaction=die, **OPTIONS[name]
    )


def end(result: pj.LockstepResult) -> str:
    """Return a checksum of a run's end, and of its last metrics."""
    return digest((parts_of(result), result.metrics[-3:]))


def go_on(directory: Path) -> None:
    """Print how each system ends that goes on from its state."""
    for name, make in SYSTEMS.items():
        result = pj.run_lockstep(make(), TICKS - SAVED_AFTER, directory=directory / name, resume=True, **OPTIONS[name])
        print(name, end(result))


def run_straight() -> None:
    """Print how each system ends that nothing happens to."""
    for name, make in SYSTEMS.items():
        print(name, end(pj.run_lockstep(make(), TICKS, **OPTIONS[name])))


# A live run.


def counted_trainer() -> pj.Trainer[Any, Any]:
    """Return a trainer whose model is the number of the newest record that it has seen; its metrics say which."""

    def init(rng_key: jax.Array, params: Any) -> pj.TrainerState[Any]:
        return pj.TrainerState(dict(params), (), jnp.zeros((), jnp.int32), rng_key)

    def step(state: pj.TrainerState[Any], numbers: jax.Array) -> Any:
        metrics = {"first": numbers[0], "last": numbers[-1]}
        return state.replace(params={"newest": numbers[-1]}, step=state.step + 1), metrics

    return pj.custom_trainer(init, step, trains=("newest",))


def live_system() -> pj.System:
    """Return a system that acts and learns, and one trainer of numbers that are brought to it, each once."""
    return pj.System(
        models={"policy": pj.Model(jnp.zeros(3)), "newest": pj.Model(jnp.float32(-1.0))},
        buffers={
            "seen": pj.ring_buffer(20_000, sampling="in_order"),
            "numbers": rollout_buffer(4, example=np.float32(0)),
        },
        trainers={
            "fit": pj.Schedule(learner(), data="seen", batch_size=4, steps=2, when=pj.min_new(3)),
            "count": pj.Schedule(counted_trainer(), data="numbers", batch_size=5, when=pj.min_new(4)),
        },
        interaction=pj.Interaction(AGENT, SavedWorld(), 0.002, collect={"seen": lambda record: record}),
    )


def bring(run: pj.Run, upto: int) -> None:
    """Bring the numbers that come next, and wait for each rollout of them to be learned from."""
    seen = run.status.buffers["numbers"].seen
    for number in range(seen, upto):
        run.collect("numbers", np.float32(number))
        if number >= 4 and number % 4 == 0:
            wait_until_counted(run, number)


def wait_until_counted(run: pj.Run, number: int) -> None:
    version = run.snapshot.version
    while float(run.snapshot.params["newest"]) < number:
        version = run.wait_for_version(version + 1, PATIENCE).version


def act_and_learn(directory: Path) -> None:
    """Save, say so, and go on until killed; what is done after the save must leave no trace."""
    with pj.launch(live_system(), directory=directory) as run:
        run.wait_for_version(3, PATIENCE)
        bring(run, 11)
        info = run.save(PATIENCE)
        print(info.number, info.facts["version"], flush=True)
        bring(run, 30)
        run.wait_for_version(info.facts["version"] + 10, PATIENCE)
        print("beyond", flush=True)
        run.wait(4 * PATIENCE)


def main(task: str, *arguments: str) -> None:
    match task, arguments:
        case "killed", (name, directory):
            be_killed(name, Path(directory))
        case "resumed", (directory,):
            go_on(Path(directory))
        case "straight", ():
            run_straight()
        case "live", (directory,):
            act_and_learn(Path(directory))
        case _:
            sys.exit(f"unknown: {task} {arguments}")


if __name__ == "__main__":
    main(*sys.argv[1:])
