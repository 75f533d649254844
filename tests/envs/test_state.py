"""An environment that is loaded goes on bit for bit like the one that was saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, override

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import wrappers

import pamiq_jax as pj
from pamiq_jax.checkpoint import StateStore
from pamiq_jax.envs import EnvironmentState, GymnasiumEnvironment, GymnasiumVectorEnvironment, python_state, state_of
from pamiq_jax.errors import InvalidValueError
from tests.envs.test_gymnasium import NestedEnvironment


def vector(name: str) -> Callable[[], Any]:
    return lambda: GymnasiumVectorEnvironment(gymnasium.make_vec(name, num_envs=3, vectorization_mode="sync"))


class Statistic:
    """An object of plain values, in a wrapper of one's own."""

    def __init__(self) -> None:
        self.mean, self.count = np.zeros(()), 0


class Own(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Adds the mean of all rewards so far."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.rewards = Statistic()

    @override
    def step(self, action: Any) -> Any:
        observation, reward, *ended = super().step(action)
        self.rewards.count += 1
        self.rewards.mean = self.rewards.mean + (float(reward) - self.rewards.mean) / self.rewards.count
        return observation, float(reward) + float(self.rewards.mean), *ended


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "NormalizeObservation": wrappers.NormalizeObservation,
    "NormalizeReward": wrappers.NormalizeReward,
    "FrameStackObservation": lambda env: wrappers.FrameStackObservation(env, 3),
    "DelayObservation": lambda env: wrappers.DelayObservation(env, 2),
    "RecordEpisodeStatistics": wrappers.RecordEpisodeStatistics,
    "TimeAwareObservation": wrappers.TimeAwareObservation,
    "several": lambda env: wrappers.FrameStackObservation(wrappers.NormalizeObservation(wrappers.ClipAction(env)), 2),
    "one's own": Own,
}
ENVIRONMENTS: dict[str, Callable[[], Any]] = {
    "CartPole-v1": lambda: GymnasiumEnvironment(gymnasium.make("CartPole-v1", max_episode_steps=15)),
    "Pendulum-v1, endless": lambda: GymnasiumEnvironment(gymnasium.make("Pendulum-v1").unwrapped),
    "Taxi-v4": lambda: GymnasiumEnvironment(gymnasium.make("Taxi-v4")),
    "three CartPoles": vector("CartPole-v1"),
    "three CartPoles in one": lambda: GymnasiumVectorEnvironment(gymnasium.make_vec("CartPole-v1", num_envs=3)),
    "three MountainCars": vector("MountainCarContinuous-v0"),
    **{
        name: lambda wrap=wrap: GymnasiumEnvironment(wrap(gymnasium.make("Pendulum-v1", max_episode_steps=25)))
        for name, wrap in WRAPPERS.items()
    },
}


def live(environment: Any, rng: np.random.Generator, ticks: int) -> list[Any]:
    """Return what is observed and fed back under random actions."""
    spec = environment.spec.action
    seen: list[Any] = []
    for _ in range(ticks):
        action = rng.integers(0, 2, spec.shape) if spec.dtype.kind == "i" else rng.uniform(-1, 1, spec.shape)
        seen += [environment.observe(), environment.affect(action.astype(spec.dtype))]
    return seen


@pytest.mark.parametrize("name", ENVIRONMENTS)
@pytest.mark.parametrize("ticks", [0, 1, 40])
def test_a_loaded_environment_goes_on_the_same(name: str, ticks: int, tmp_path: Any) -> None:
    first, second, actions = ENVIRONMENTS[name](), ENVIRONMENTS[name](), np.random.default_rng(7)
    first.reset(seed=3)
    live(first, actions, ticks)
    store = StateStore(tmp_path)
    state = store.read(store.write(first.save_state(), facts={}, created_at=0.0))  # as it comes back from a disk
    second.reset(seed=99)
    second.load_state(state)
    follow = actions.spawn(2)[0].bit_generator.state
    expected, actual = (live(one, generator(follow), 60) for one in (first, second))
    for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(actual), strict=True):
        np.testing.assert_array_equal(one, other)
    for environment in (first, second):
        environment.close()


def generator(state: Any) -> np.random.Generator:
    rng = np.random.default_rng()
    rng.bit_generator.state = state
    return rng


def test_what_is_not_known_is_not_saved() -> None:
    environment = GymnasiumEnvironment(NestedEnvironment())
    environment.reset(seed=0)
    assert environment.save_state() is None
    with pytest.raises(InvalidValueError, match=r"load_state\(state\) is None, expected an environment that can"):
        environment.load_state({})


def test_a_wrapper_with_something_else_begins_anew() -> None:
    wrapped = wrappers.TimeAwareObservation(gymnasium.make("Pendulum-v1"))
    environment = GymnasiumEnvironment(wrapped)
    environment.reset(seed=0)
    assert environment.save_state() is not None
    wrapped.memory = iter(range(3))  # type: ignore[attr-defined]
    assert state_of(wrapped) is None
    assert environment.save_state() is None
    assert GymnasiumEnvironment(wrapped).save_state() is None


@pytest.mark.parametrize("name", ["NormalizeObservation", "FrameStackObservation"])
def test_thirty_ticks_and_thirty_more_are_sixty(name: str, tmp_path: Path) -> None:
    def act(params: Any, carry: Any, observation: jax.Array, rng_key: jax.Array) -> Any:
        return carry, jnp.tanh(observation.reshape(-1)[-3:-2]), {}

    def run(ticks: int, **options: Any) -> list[Any]:
        environment = ENVIRONMENTS[name]()
        seen: list[Any] = []
        observe = environment.observe
        environment.observe = lambda: seen.append(observe()) or seen[-1]
        agent = pj.Agent(act, lambda rng_key: ())
        system = pj.System({"policy": pj.Model(jnp.zeros(1))}, {}, {}, pj.Interaction(agent, environment))
        pj.run_lockstep(system, ticks, seed=5, **options)
        return [np.array(one) for one in seen]

    whole, first = run(60), run(30, directory=tmp_path)
    rest = run(30, directory=tmp_path, resume=True)
    assert len(first) == len(rest) == 30
    np.testing.assert_array_equal(whole, first + rest)


def test_any_environment_in_pure_python_can_be_said_to_be_one() -> None:
    inner = NestedEnvironment()
    environment = GymnasiumEnvironment(inner, state=python_state)
    environment.reset(seed=0)
    inner.ticks = 2
    saved = environment.save_state()
    environment.reset(seed=0)
    environment.load_state(saved)
    assert inner.ticks == 2


def test_an_own_way_of_saving() -> None:
    inner = NestedEnvironment()
    state = EnvironmentState(lambda env: env.ticks, lambda env, ticks: setattr(env, "ticks", ticks))
    environment = GymnasiumEnvironment(inner, state=state)
    environment.reset(seed=0)
    inner.ticks = 2
    saved = environment.save_state()
    environment.reset(seed=0)
    environment.load_state(saved)
    assert inner.ticks == 2


def test_another_number_of_environments() -> None:
    three = vector("CartPole-v1")()
    three.reset(seed=0)
    two = GymnasiumVectorEnvironment(gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync"))
    two.reset(seed=0)
    with pytest.raises(InvalidValueError, match=r"load_state\(environment\) .*expected 3 environments"):
        two.load_state(three.save_state())


def test_subprocesses_are_not_known() -> None:
    assert state_of(object()) is None
