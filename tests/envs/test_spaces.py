"""Every kind of space goes through both adapters, as observation and as action, and comes out as it went in."""

from __future__ import annotations

import functools
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import pamiq_jax as pj
from pamiq_jax import trees
from pamiq_jax.envs import GymnasiumEnvironment, GymnasiumVectorEnvironment
from pamiq_jax.envs.spaces import from_space, space_spec
from pamiq_jax.errors import InvalidValueError

ARM = spaces.Tuple([spaces.Discrete(4), spaces.Box(-1.0, 1.0, (2,))])
SPACES = {
    "discrete": spaces.Discrete(3),
    "multi-binary": spaces.MultiBinary(3),
    "multi-binary matrix": spaces.MultiBinary([2, 3]),
    "multi-discrete": spaces.MultiDiscrete([3, 4]),
    "box of float64": spaces.Box(-1.0, 1.0, (2,), np.float64),
    "image": spaces.Box(0, 255, (2, 2, 3), np.uint8),
    "tuple": spaces.Tuple([spaces.Discrete(2), spaces.MultiBinary(2)]),
    "dict out of order": spaces.Dict(wheel=spaces.MultiBinary(2), arm=ARM, legs=spaces.Dict(left=spaces.Discrete(2))),
}


class Echo(gymnasium.Env[Any, Any]):
    """Observes the last action, which it only takes if it is a value of its space."""

    def __init__(self, space: Any) -> None:
        self.observation_space = self.action_space = space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        return action, 1.0, False, False, {}


def echo(space: Any, num_envs: int) -> tuple[Any, Any]:
    """Return the adapter, and the space of its actions."""
    if not num_envs:
        return GymnasiumEnvironment(Echo(space)), space
    vector = gymnasium.vector.SyncVectorEnv([functools.partial(Echo, space)] * num_envs)
    return GymnasiumVectorEnvironment(vector), vector.action_space


@pytest.mark.parametrize("num_envs", [0, 2])
@pytest.mark.parametrize("name", SPACES)
def test_an_action_comes_back_as_the_observation(name: str, num_envs: int) -> None:
    environment, space = echo(SPACES[name], num_envs)
    space.seed(0)
    environment.reset(0)
    assert trees.difference(environment.spec.observation, environment.observe()) is None
    for _ in range(3):
        action = from_space(space, space.sample())
        assert trees.difference(environment.spec.action, action) is None
        environment.affect(action)
        jax.tree.map(np.testing.assert_array_equal, environment.observe(), action)
    environment.close()


@pytest.mark.parametrize("num_envs", [0, 2])
@pytest.mark.parametrize("name", ["discrete", "multi-binary", "dict out of order"])
def test_a_compiled_agent_observes_it_acts_in_it_and_learns_from_it(name: str, num_envs: int) -> None:
    environment, _ = echo(SPACES[name], num_envs)

    def act(params: Any, carry: Any, observation: Any, rng_key: jax.Array) -> Any:
        return carry, observation, {}  # as an echo of the echo, the first observation stays

    def step(state: Any, batch: Any) -> Any:
        pairs = zip(jax.tree.leaves(batch["observation"]), jax.tree.leaves(batch["action"]), strict=True)
        is_same = jnp.stack([jnp.all(one == other) for one, other in pairs]).all()
        return state.replace(step=state.step + 1), {"is_same": is_same.astype(jnp.float32)}

    def init(rng_key: jax.Array, params: Any) -> Any:
        return pj.TrainerState(params, (), jnp.zeros((), jnp.int32), rng_key)

    system = pj.System(
        models={"none": pj.Model(jnp.zeros(()))},
        buffers={"seen": pj.ring_buffer(8)},
        trainers={"compare": pj.Schedule(pj.custom_trainer(init, step), data="seen", batch_size=4)},
        interaction=pj.Interaction(pj.Agent(act), environment),
    )
    result = pj.run_lockstep(system, interactions=3)
    assert [float(metrics["is_same"]) for _, metrics in result.metrics] == [1.0, 1.0, 1.0]
    environment.close()


@pytest.mark.parametrize("num_envs", [0, 2])
@pytest.mark.parametrize("space", [spaces.Discrete(3, start=1), spaces.MultiDiscrete([3, 4], start=[1, 0])])
def test_a_space_that_does_not_count_from_0_is_refused(space: Any, num_envs: int) -> None:
    message = (
        r"observation_space is .*, expected a space that counts from 0.*wrappers\.TransformObservation\(environment"
    )
    with pytest.raises(InvalidValueError, match=message):
        echo(space, num_envs)
    with pytest.raises(
        InvalidValueError, match=r"action_space is .*wrappers\.TransformAction\(environment, lambda action"
    ):
        space_spec(space, "action_space")


def test_the_remedy_for_it_shifts_what_an_agent_does() -> None:
    inner = Echo(spaces.Discrete(3, start=1))
    seen = gymnasium.wrappers.TransformObservation(inner, lambda observation: observation - 1, spaces.Discrete(3))
    wrapped = gymnasium.wrappers.TransformAction(seen, lambda action: action + 1, spaces.Discrete(3))
    environment = GymnasiumEnvironment(wrapped)
    environment.reset(0)
    environment.affect(np.int32(0))
    assert environment.observe() == 0


@pytest.mark.parametrize("space", [spaces.Dict({}), spaces.Tuple([]), spaces.Dict(arm=spaces.Tuple([]))])
def test_a_space_without_a_part_is_refused(space: Any) -> None:
    with pytest.raises(InvalidValueError, match="expected a Dict or Tuple of at least one space; leave it out"):
        space_spec(space, "action_space")
