"""What a hostile user does, and what has once gone wrong."""

from __future__ import annotations

import sys
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pamiq_jax as pj
from pamiq_jax.errors import InvalidValueError, RecordMismatchError, StepStructureError, WorkerError
from tests.runtime.fakes import World, learner, learning_system

PATIENCE = 60.0


def system_of(world: World, trainer: pj.Trainer[Any, Any]) -> pj.System:
    schedule = pj.Schedule(trainer, data="seen", batch_size=4, steps=4, steps_per_chunk=2, when=pj.min_new(3))
    return learning_system(world, trainers={"fit": schedule})


class SwapState(pj.TrainerState[Any]):
    """Also keeps what the parameters were."""

    before: Any


def swapping_trainer(change: Any, *, at: str) -> pj.Trainer[Any, Any]:
    """Return a trainer whose setup or teardown moves arrays between a kept and a donated field."""

    def init(rng_key: jax.Array, params: Any) -> SwapState:
        copy = jax.tree.map(jnp.copy, params)
        return SwapState(params, (), jnp.zeros((), jnp.int32), rng_key, before=copy)

    def step(state: SwapState, batch: Any) -> Any:
        return state.replace(
            params=jax.tree.map(lambda leaf: leaf + 1, state.params),
            before=jax.tree.map(lambda leaf: leaf - 1, state.before),
            step=state.step + 1,
        ), {}

    functions = {at: change}
    return pj.custom_trainer(init, step, trains=("policy",), **functions)


MOVES = {
    "swap": lambda state: state.replace(params=state.before, before=state.params),
    "hard target": lambda state: state.replace(before=state.params),
    "take back": lambda state: state.replace(params=state.before),
}


@pytest.mark.parametrize("at", ["setup", "teardown"])
@pytest.mark.parametrize("move", MOVES)
def test_no_snapshot_dies_when_setup_or_teardown_moves_arrays(move: str, at: str) -> None:
    system = system_of(World(), swapping_trainer(MOVES[move], at=at))
    snapshots: list[pj.Snapshot] = []
    compiled = pj.compile_system(system, seed=0, check_donation=True)
    programs, state, cells = compiled.programs, compiled.learner, compiled.cells()
    actor = compiled.actor
    assert actor is not None
    assert system.interaction is not None
    system.interaction.environment.reset(0)
    for _ in range(40):
        actor, _ = pj.infer_tick(programs, actor, cells, pj.VirtualClock())
        state, report = pj.train_tick(programs, state, cells, pj.VirtualClock())
        assert report.error is None
        snapshots.append(cells.store.latest)
    assert snapshots[-1].version > 3
    for snapshot in snapshots:
        assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(dict(snapshot.params)))


def test_a_reader_cannot_change_a_snapshot() -> None:
    store = pj.SnapshotStore({"policy": {"w": jnp.zeros(2)}})
    store.latest.params["policy"]["w"] = jnp.ones(2)
    assert store.latest.params["policy"]["w"].tolist() == [0, 0]


def test_a_publisher_cannot_change_a_snapshot() -> None:
    published = {"policy": {"w": jnp.zeros(2)}}
    store = pj.SnapshotStore(published)
    published["policy"]["w"] = jnp.ones(2)
    assert store.latest.params["policy"]["w"].tolist() == [0, 0]


class Exiting(World):
    """Ends the interpreter, as a library might that it uses."""

    def observe(self) -> Any:
        sys.exit("the simulator is gone")


def test_system_exit_in_a_worker_is_reported() -> None:
    with pj.launch(system_of(Exiting(), learner())) as run:
        with pytest.raises(WorkerError, match="SystemExit: the simulator is gone"):
            run.wait(PATIENCE)
        assert run.wait(PATIENCE) is pj.WaitResult.ENDED
        assert run.status.phase is pj.SystemPhase.FAILED


def test_a_second_system_compiles_without_harm_to_a_strict_one() -> None:
    with pj.launch(system_of(World(), learner()), strict=True) as first:
        first.wait_until_ready()
        with pj.launch(system_of(World(), learner())) as second:
            second.wait_for_version(1, PATIENCE)
        first.wait_for_version(first.snapshot.version + 2, PATIENCE)
        assert (first.status.errors, first.status.compiles_after_ready) == ((), 0)


def test_an_agent_acts_beyond_two_to_the_32_ticks() -> None:
    compiled = pj.compile_system(system_of(World(), learner()))
    assert compiled.actor is not None
    assert compiled.programs.system.interaction is not None
    compiled.programs.system.interaction.environment.reset(0)
    actor = compiled.actor._replace(tick=2**32 + 5)
    actor, _ = pj.infer_tick(compiled.programs, actor, compiled.cells(), pj.VirtualClock())
    assert actor.tick == 2**32 + 6


def test_stopping_from_several_threads_restores_the_interpreter_once() -> None:
    before = sys.getswitchinterval()
    run = pj.launch(system_of(World(), learner()))
    threads = [threading.Thread(target=run.stop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sys.getswitchinterval() == before
    with pj.launch(system_of(World(), learner())):
        assert sys.getswitchinterval() < before
    assert sys.getswitchinterval() == before


class Mistaken(World):
    """Observes something else than it says."""

    def __init__(self, observation: Any) -> None:
        super().__init__()
        self.mistake = observation

    def observe(self) -> Any:
        return self.mistake


@pytest.mark.parametrize("mistake", [np.zeros(7, np.float32), np.zeros(3, np.int32), {"x": np.float32(0)}, None])
def test_an_observation_of_another_form_is_refused_by_name(mistake: Any) -> None:
    system = system_of(Mistaken(mistake), learner())
    with pytest.raises(RecordMismatchError, match="the observation differs from the environment's spec"):
        pj.run_lockstep(system, 1)


def interaction_with(act: Any, world: World) -> pj.System:
    system = system_of(world, learner())
    assert system.interaction is not None
    return pj.System(system.models, system.buffers, system.trainers, pj.Interaction(pj.Agent(act), world))


def test_an_action_of_another_form_is_refused_before_anything_moves() -> None:
    world = World()
    system = interaction_with(lambda params, carry, observation, rng_key: (carry, jnp.zeros((5, 5)), {}), world)
    with pytest.raises(RecordMismatchError, match="the agent's action differs from the environment's spec"):
        pj.compile_system(system)


def test_extras_that_would_replace_the_observation_are_refused() -> None:
    def act(params: Any, carry: Any, observation: Any, rng_key: jax.Array) -> Any:
        return carry, World.spec.action, {"observation": observation}

    with pytest.raises(InvalidValueError, match=r"extras and the environment's feedback is \['observation'\]"):
        pj.compile_system(interaction_with(act, World()))


def test_an_act_of_two_values_is_refused() -> None:
    with pytest.raises(StepStructureError, match=r"expected \(carry, action, extras\)"):
        pj.compile_system(interaction_with(lambda *arguments: (None, None), World()))


def test_waiting_for_a_version_ends_when_the_trainer_fails() -> None:
    def step(state: Any, batch: Any) -> Any:
        raise ZeroDivisionError("no heater")

    broken = pj.custom_trainer(learner().init, step, trains=("policy",), compiled=False)
    with pj.launch(system_of(World(), broken)) as run:
        with pytest.raises(WorkerError, match="ZeroDivisionError: no heater"):
            run.wait_for_version(1, PATIENCE)
        run.stop()
        with pytest.raises(TimeoutError, match=r"version 5 will not be published: .*no heater"):
            run.wait_for_version(5, PATIENCE)


def test_the_clock_stands_still_after_the_end() -> None:
    with pj.launch(system_of(World(), learner())) as run:
        run.wait_until_ready()
    assert run.status.seconds == run.status.seconds


@pytest.mark.parametrize("number", [2.5, True, 0])
def test_numbers_must_be_whole(number: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"ring_buffer\(capacity\) is .*, expected an integer from 1"):
        pj.ring_buffer(number)
    with pytest.raises(InvalidValueError, match=r"Queue\(capacity\) is .*, expected an integer from 1"):
        pj.Queue(number)
    with pytest.raises(InvalidValueError, match=r"Schedule\(steps\) is .*, expected an integer from 1"):
        pj.Schedule(learner(), data="x", batch_size=1, steps=number)
