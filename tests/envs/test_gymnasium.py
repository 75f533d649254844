from __future__ import annotations

import functools
import sys
from typing import Any

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces

from pamiq_jax import trees
from pamiq_jax.envs import GymnasiumEnvironment, GymnasiumVectorEnvironment
from pamiq_jax.envs.spaces import from_space, space_spec, to_space
from pamiq_jax.errors import InvalidValueError

NESTED = spaces.Dict(
    camera=spaces.Box(0, 255, (2, 3, 3), np.uint8),
    arm=spaces.Tuple([spaces.Box(-1.0, 1.0, (2,), np.float64), spaces.MultiDiscrete([3, 4])]),
    touch=spaces.MultiBinary(3),
    room=spaces.Discrete(5),
)


class NestedEnvironment(gymnasium.Env[Any, Any]):
    """Observes what its space says; ends every third step; remembers the actions that it was given."""

    observation_space = NESTED
    action_space = spaces.Dict(move=spaces.Discrete(3), push=spaces.Box(-1.0, 1.0, (2,)))

    def __init__(self) -> None:
        self.actions: list[Any] = []
        self.ticks = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.ticks = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.actions.append(action)
        self.ticks += 1
        return self.observation_space.sample(), 0.5, False, self.ticks == 3, {}


def make(name: str, num_envs: int = 0) -> GymnasiumEnvironment | GymnasiumVectorEnvironment:
    if num_envs:
        return GymnasiumVectorEnvironment(gymnasium.make_vec(name, num_envs=num_envs, vectorization_mode="sync"))
    return GymnasiumEnvironment(gymnasium.make(name))


def zero_action(environment: Any) -> Any:
    return jax.tree.map(lambda spec: np.zeros(spec.shape, spec.dtype), environment.spec.action)


def trajectory(environment: Any, seed: int, ticks: int) -> list[Any]:
    environment.reset(seed)
    return [(environment.observe(), environment.affect(zero_action(environment))) for _ in range(ticks)]


@pytest.mark.parametrize("num_envs", [0, 3])
@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1"])
def test_values_are_as_the_spec_says(name: str, num_envs: int) -> None:
    environment = make(name, num_envs)
    for observation, feedback in trajectory(environment, 0, 30):
        assert trees.difference(environment.spec.observation, observation) is None
        assert trees.difference(environment.spec.feedback, feedback) is None
        dtypes = jax.tree.map(lambda leaf: leaf.dtype, (observation, feedback))
        assert dtypes == jax.tree.map(
            lambda leaf: np.dtype(leaf.dtype), (environment.spec.observation, environment.spec.feedback)
        )
    environment.close()


@pytest.mark.parametrize("num_envs", [0, 3])
@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1"])
def test_equal_seeds_behave_equally_also_when_reset_in_mid_episode(name: str, num_envs: int) -> None:
    environment = make(name, num_envs)
    first, second = (trajectory(environment, 7, 25) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    environment.close()


def test_another_seed_behaves_differently() -> None:
    environment = make("CartPole-v1")
    first, second = (trajectory(environment, seed, 1)[0][0] for seed in (0, 1))
    assert not np.array_equal(first, second)
    environment.close()


@pytest.mark.parametrize("mode", ["sync", "vector_entry_point"])
def test_the_tick_after_an_end_resets_in_its_own_row(mode: str) -> None:
    environment = GymnasiumVectorEnvironment(gymnasium.make_vec("CartPole-v1", num_envs=3, vectorization_mode=mode))
    ticks = trajectory(environment, 0, 40)
    previous = np.zeros(3, np.bool_)
    starts = 0
    for index, (_, feedback) in enumerate(ticks):
        np.testing.assert_array_equal(feedback["autoreset"], previous)
        np.testing.assert_array_equal(feedback["reward"], np.where(previous, 0.0, 1.0))
        ended = feedback["terminated"] | feedback["truncated"]
        assert not np.any(ended & feedback["autoreset"])
        if index + 1 < len(ticks):
            following = ticks[index + 1][0]
            assert np.all(np.abs(following[feedback["autoreset"]]) <= 0.05)
            assert np.all(np.abs(following[ended][:, 2]) > 0.2), "the last observation of an episode is the true one"
        starts += int(feedback["autoreset"].sum())
        previous = ended
    assert starts >= 3
    environment.close()


def test_a_single_environment_resets_in_the_same_way() -> None:
    environment = make("CartPole-v1")
    ticks = trajectory(environment, 0, 40)
    ends = [index for index, (_, feedback) in enumerate(ticks) if feedback["terminated"]]
    autoresets = [index for index, (_, feedback) in enumerate(ticks) if feedback["autoreset"]]
    assert len(autoresets) >= 2
    assert autoresets == [index + 1 for index in ends if index + 1 < len(ticks)]
    assert all(ticks[index][1]["reward"] == 0.0 for index in autoresets)
    environment.close()


def test_nested_spaces_pass_in_and_out_as_pytrees() -> None:
    inner = NestedEnvironment()
    environment = GymnasiumEnvironment(inner)
    environment.reset(3)
    observation = environment.observe()
    assert trees.difference(environment.spec.observation, observation) is None
    assert observation["arm"][0].dtype == np.float32
    for _ in range(4):
        feedback = environment.affect({"move": np.array(2, np.int32), "push": np.full(2, 0.5, np.float32)})
    assert feedback["autoreset"]
    assert len(inner.actions) == 3, "the tick that resets gives the environment no action"
    assert inner.actions[0]["move"] == 2


def test_nested_spaces_in_a_vector_environment() -> None:
    vector = gymnasium.vector.SyncVectorEnv([NestedEnvironment, NestedEnvironment])
    environment = GymnasiumVectorEnvironment(vector)
    environment.reset(0)
    assert trees.difference(environment.spec.observation, environment.observe()) is None
    action = {"move": np.array([1, 2], np.int32), "push": np.zeros((2, 2), np.float32)}
    feedback = [environment.affect(action) for _ in range(4)]
    assert [row["truncated"].all() for row in feedback] == [False, False, True, False]
    assert feedback[3]["autoreset"].all()
    environment.close()


def test_conversion_there_and_back_keeps_a_value_in_its_space() -> None:
    NESTED.seed(0)
    value = NESTED.sample()
    assert NESTED.contains(to_space(NESTED, from_space(NESTED, value)))


def test_feedback_survives_the_next_step() -> None:
    environment = make("CartPole-v1", num_envs=2)
    environment.reset(0)
    first = environment.affect(np.zeros(2, np.int32))
    copies = jax.tree.map(np.copy, first)
    for _ in range(20):
        environment.affect(np.zeros(2, np.int32))
    jax.tree.map(np.testing.assert_array_equal, first, copies)
    environment.close()


@pytest.mark.parametrize(
    ("space", "named"),
    [
        (spaces.Text(5), r"observation_space is Text"),
        (spaces.Dict(a=spaces.Tuple([spaces.Text(5)])), r"observation_space\['a'\]\[0\] is Text"),
        (spaces.Sequence(spaces.Discrete(2)), r"observation_space is Sequence"),
    ],
)
def test_spaces_without_arrays_of_fixed_shape_are_refused(space: Any, named: str) -> None:
    with pytest.raises(InvalidValueError, match=named + r".*expected a Box.*wrap the environment"):
        space_spec(space, "observation_space")


def test_the_adapter_refuses_such_a_space_when_built() -> None:
    environment = NestedEnvironment()
    environment.action_space = spaces.Text(5)
    with pytest.raises(InvalidValueError, match="action_space is Text"):
        GymnasiumEnvironment(environment)


@pytest.mark.parametrize("mode", [gymnasium.vector.AutoresetMode.SAME_STEP, gymnasium.vector.AutoresetMode.DISABLED])
def test_other_autoreset_modes_are_refused(mode: gymnasium.vector.AutoresetMode) -> None:
    vector = gymnasium.vector.SyncVectorEnv([functools.partial(gymnasium.make, "CartPole-v1")] * 2, autoreset_mode=mode)
    with pytest.raises(InvalidValueError, match=r"autoreset_mode is .*expected AutoresetMode.NEXT_STEP"):
        GymnasiumVectorEnvironment(vector)
    vector.close()


def test_single_and_vector_are_not_confused() -> None:
    with pytest.raises(InvalidValueError, match="use GymnasiumVectorEnvironment"):
        GymnasiumEnvironment(gymnasium.make_vec("CartPole-v1", num_envs=2))  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="use GymnasiumEnvironment for a single one"):
        GymnasiumVectorEnvironment(gymnasium.make("CartPole-v1"))  # type: ignore[arg-type]


@pytest.mark.parametrize("num_envs", [0, 2])
def test_there_is_no_observation_before_reset(num_envs: int) -> None:
    with pytest.raises(gymnasium.error.ResetNeeded, match="call `reset"):
        make("CartPole-v1", num_envs).observe()


def test_without_gymnasium_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("pamiq_jax.envs")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    import pamiq_jax.envs

    with pytest.raises(ImportError, match=r"pip install 'pamiq-jax\[gymnasium\]'"):
        pamiq_jax.envs.GymnasiumEnvironment  # noqa: B018 - asking for it is what raises
